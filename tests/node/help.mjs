/** What the tests share: addresses, a Redis, children, and a look at what is collected. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after } from 'node:test'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import v8 from 'node:v8'
import vm from 'node:vm'

v8.setFlagsFromString('--expose-gc')
export const gc = vm.runInNewContext('gc')

export const root = fileURLToPath(new URL('../..', import.meta.url))
const actor = fileURLToPath(new URL('./actor.mjs', import.meta.url))
export const actorUrl = new URL('./actor.mjs', import.meta.url)

let names = 0
/** A table of locks of its own. */
export const memory = () => `memory://node-${process.pid}-${++names}`

/** A directory of its own. */
export function file() {
  const dir = mkdtempSync(path.join(tmpdir(), 'dlock-node-'))
  after(() => rmSync(dir, { recursive: true, force: true }))
  return `file://${dir}`
}

/** The servers by their addresses, to be stopped and continued. */
export const servers = new Map()

/** A port that nobody listens at. */
async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address()
  probe.close()
  await once(probe, 'close')
  return port
}

/** Starts a server, and waits until it is up. */
async function serve(url, command, args, isUp) {
  const server = spawn(command, args, { stdio: 'ignore' })
  after(() => server.kill('SIGKILL'))
  await until(isUp)
  servers.set(url, server)
  return url
}

/** A Redis of its own. */
export async function redis() {
  const port = await freePort()
  const args = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  return serve(`redis://127.0.0.1:${port}`, 'redis-server', args, async () => {
    const socket = connect(port, '127.0.0.1')
    const [up] = await Promise.race([once(socket, 'connect').then(() => [true]), once(socket, 'close').then(() => [])])
    socket.destroy()
    return up
  })
}

/** An etcd of its own. */
export async function etcd() {
  const [port, peer] = [await freePort(), await freePort()]
  const dir = mkdtempSync(path.join(tmpdir(), 'dlock-etcd-'))
  after(() => rmSync(dir, { recursive: true, force: true }))
  const [address, peers] = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${peer}`]
  const args = ['--name', 'one', '--data-dir', dir, '--initial-cluster', `one=${peers}`]
  args.push('--listen-client-urls', address, '--advertise-client-urls', address)
  args.push('--listen-peer-urls', peers, '--initial-advertise-peer-urls', peers)
  return serve(`etcd://127.0.0.1:${port}`, path.join(process.env.ETCD_BIN ?? '', 'etcd'), args, async () => {
    const { health } = await (await fetch(`${address}/health`)).json()
    return health === 'true'
  })
}

/** Waits until it is so; fails when that takes too long. */
export async function until(isSo, limit = 10_000) {
  const end = performance.now() + limit
  while (!(await Promise.resolve(isSo()).catch(() => false))) {
    if (performance.now() > end) throw new Error(`not so after ${limit} ms: ${isSo}`)
    await sleep(5)
  }
}

/** Has what nobody can reach collected, and its finalizers run. */
export async function collect() {
  for (let i = 0; i < 4; i++) {
    await turn()
    gc()
  }
  await turn()
}

/** The error that this rejects or throws. */
export async function failure(act) {
  try {
    await (typeof act === 'function' ? act() : act)
  } catch (error) {
    return error
  }
  throw new Error('it did not fail')
}

class Child {
  constructor(flags) {
    this.process = spawn(process.execPath, flags, { cwd: root, stdio: ['pipe', 'pipe', 'pipe'] })
    this.said = ''
    this.complained = ''
    this.process.stdout.on('data', (data) => (this.said += data))
    this.process.stderr.on('data', (data) => (this.complained += data))
    this.ended = once(this.process, 'close').then(([code, signal]) => ({ code, signal }))
  }

  async hears(text) {
    await Promise.race([until(() => this.said.includes(text), 30_000), this.ended])
    if (!this.said.includes(text)) throw new Error(`it ended without ${text}: ${this.said} ${this.complained}`)
  }

  tell(text) {
    this.process.stdin.write(`${text}\n`)
  }
}

/** A process that does the job. */
export const act = (job, flags = []) => new Child([...flags, actor, JSON.stringify(job)])

/** A process that runs this module; gives how it ended and what it said, or fails after a while. */
export async function run(source, flags = []) {
  const child = new Child([...flags, '--input-type=module', '--eval', source])
  const timer = setTimeout(() => child.process.kill('SIGKILL'), 30_000)
  const { code, signal } = await child.ended
  clearTimeout(timer)
  return { code, signal, said: child.said, complained: child.complained }
}

export { sleep, turn }
