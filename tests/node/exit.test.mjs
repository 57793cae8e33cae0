/** The end of a process: whichever way, it neither crashes nor hangs, and leaves no lock behind. */
import assert from 'node:assert/strict'
import test from 'node:test'

import { connect } from 'dlock-rs'

import { act, file, redis, run, servers } from './help.mjs'

const ENDS = ['exit', 'throw', 'natural', 'kill']
const TTL = 1000
/** How many processes at a time. */
const BATCH = 8

/** One process that ends so; then its lock is to be had: within a second, or after the ttl if it was killed. */
async function one(url, client, key, job) {
  const mine = job.act === 'wait' ? await client.acquire(key) : null
  const child = act({ url, key, ttl: TTL, ...job })
  await child.hears('ready')
  if (job.end === 'kill') child.process.kill('SIGKILL')
  else child.tell('go')
  if (job.end === 'natural' && mine !== null) {
    // A pending acquire keeps the process alive until it is settled.
    await mine.release()
    await child.hears('obtained')
  }
  const { code, signal } = await child.ended
  const expected = { exit: 0, natural: 0, throw: 1, kill: null }[job.end]
  assert.deepEqual([code, signal], [expected, job.end === 'kill' ? 'SIGKILL' : null], child.complained)
  if (mine !== null && job.end !== 'natural') {
    mine.check()
    await mine.release()
  }
  const wait = job.end === 'kill' ? TTL + 1500 : 1000
  await (await client.acquire(key, { wait })).release()
}

for (const [backend, make] of Object.entries({ file: () => file(), redis: () => redis() })) {
  test(`${backend}: 100 processes that end while they hold or wait`, async () => {
    const url = await make()
    const client = await connect(url)
    for (let n = 0; n < 100; n += BATCH) {
      const batch = Array.from({ length: Math.min(BATCH, 100 - n) }, (_, m) => n + m)
      await Promise.all(
        batch.map((m) => one(url, client, `k${m}`, { act: m % 2 ? 'hold' : 'wait', end: ENDS[(m >> 1) % 4] })),
      )
    }
  })
}

test('process.exit inside the callback of a request', async () => {
  const url = await redis()
  const source = `
    import { connect } from 'dlock-rs'
    const client = await connect('${url}')
    client.request('k', { ttl: 20_000 }, () => process.exit(7))`
  const { code, complained } = await run(source)
  assert.deepEqual([code, complained], [7, ''])
  await (await (await connect(url)).acquire('k', { wait: 1000 })).release()
})

test('an exit handler of the own may still use locks', async () => {
  const source = `
    import { connect } from 'dlock-rs'
    const client = await connect('memory://x')
    const lease = await client.acquire('k')
    const rejected = []
    process.on('exit', () => {
      // Released by then: what comes back says so, and nothing crashes.
      console.log(lease.validFor())
      lease.release()
      client.acquire('k2')
      client.contenders('k').catch(() => {})
    })`
  const { code, said, complained } = await run(source)
  assert.deepEqual([code, said.trim()], [0, '0'], complained)
})

test('a backend that does not answer holds nobody up for long', async () => {
  const url = await redis()
  const child = act({ url, key: 'k', act: 'hold', end: 'exit', ttl: 20_000 })
  await child.hears('ready')
  const client = await connect(`${url}?connect_timeout=4s`)
  servers.get(url).kill('SIGSTOP')
  const begin = performance.now()
  child.tell('go')
  const { code } = await child.ended
  servers.get(url).kill('SIGCONT')
  assert.equal(code, 0, child.complained)
  assert.ok(performance.now() - begin < 10_000, 'a second is the limit; far more would be a hang')
  await client.ping()
})

const ALIVE = {
  'an idle client does not keep the process': ['', 'ended'],
  'a held lease does not': ["await client.acquire('k')", 'ended'],
  'a watched lease does not': ["const { signal } = await client.acquire('k')", 'ended'],
  'a settled call does not': ["await client.contenders('k'); await (await client.acquire('k')).release()", 'ended'],
  'a pending acquire does': ["await client.acquire('k'); client.acquire('k', { wait: 300 }).catch(() => console.log('timeout'))", 'timeout'],
  'a pending request does': ["await client.acquire('k'); client.request('k', { wait: 300 }, () => {}).catch(() => console.log('timeout'))", 'timeout'],
  'a lease with ref: true does, until it is released': [
    "const lease = await client.acquire('k', { ref: true }); setTimeout(() => { console.log('released'); lease.release() }, 200).unref()",
    'released',
  ],
  'a lease with ref: true does, until it is lost': [
    "const lease = await client.acquire('k', { ref: true, ttl: 300, autoRenew: false }); lease.signal.addEventListener('abort', () => console.log('lost'))",
    'lost',
  ],
  'a callback under ref: true does': [
    "client.request('k', { ref: true }, () => new Promise((resolve) => setTimeout(() => { console.log('done'); resolve() }, 200).unref()))",
    'done',
  ],
  'an aborted acquire does not': [
    "await client.acquire('k'); const c = new AbortController(); client.acquire('k', { signal: c.signal }).catch(() => console.log('aborted')); c.abort()",
    'aborted',
  ],
}
for (const [name, [work, last]] of Object.entries(ALIVE)) {
  test(name, async () => {
    // The process ends when nothing keeps it: its last words tell what did.
    const source = `
      import { connect } from 'dlock-rs'
      const client = await connect('memory://x')
      ${work}
      ${last === 'ended' ? "process.on('exit', () => console.log('ended'))" : ''}`
    const { code, said, complained } = await run(source)
    assert.deepEqual([code, said.trim()], [0, last], complained)
  })
}

test('ref: true and a lease that nobody has any more', async () => {
  const source = `
    import { connect } from 'dlock-rs'
    import { setFlagsFromString } from 'node:v8'
    import { runInNewContext } from 'node:vm'
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc')
    const client = await connect('memory://x')
    const forget = async () => void (await client.acquire('k', { ref: true }))
    await forget()
    const timer = setInterval(() => gc(), 20).unref()
    process.on('exit', () => console.log('ended'))`
  const { code, said, complained } = await run(source)
  assert.deepEqual([code, said.trim()], [0, 'ended'])
  assert.match(complained, /DLOCK_UNRELEASED/)
})

test('an unhandled rejection of a call is the own one, with its stack', async () => {
  const { code, complained } = await run(`
    import { connect } from 'dlock-rs'
    const client = await connect('memory://x')
    await client.acquire('k')
    await client.acquire('k', { wait: 20 })`)
  assert.equal(code, 1)
  assert.match(complained, /LockTimeoutError/)
})
