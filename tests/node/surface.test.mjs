/** What there is, and what it looks like. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'

import * as dlock from 'dlock-rs'

import { failure, file, memory, run, until } from './help.mjs'

test('import and require give the same module', () => {
  const required = createRequire(import.meta.url)('dlock-rs')
  assert.equal(dlock.default, required)
  for (const name of Object.keys(required)) assert.equal(dlock[name], required[name], name)
  assert.deepEqual(Object.keys(dlock).filter((name) => name !== 'default').sort(), Object.keys(required).sort())
})

test('a lease says what it is, before and after its release', async () => {
  const client = await dlock.connect(memory())
  const lease = await client.acquire('user:42', { ttl: 9000, token: 'mine' })
  const look = () => [lease.name, lease.mode, lease.fence, lease.token, lease.ttl]
  const before = look()
  assert.deepEqual(before, ['user:42', 'exclusive', lease.fence, 'mine', 9000])
  assert.equal(typeof lease.fence, 'bigint')
  assert.equal(lease.validFor(), Infinity)
  lease.check()
  assert.deepEqual(await lease.release(), { lost: false })
  assert.deepEqual(look(), before)
  assert.equal(lease.validFor(), 0)
})

test('a token of our own is unique, and stays known', async () => {
  const client = await dlock.connect(memory())
  const [one, two] = [await client.acquire('k'), await client.acquire('k2')]
  assert.notEqual(one.token, two.token)
  const { token } = one
  await one.release()
  assert.equal(one.token, token)
  await two.release()
})

test('fences rise, and are whole beyond 32 bits', async () => {
  // Those of files begin at the clock, far above 32 bits.
  const client = await dlock.connect(file())
  let last = 2n ** 32n
  for (let i = 0; i < 3; i++) {
    const lease = await client.acquire('k')
    const held = lease.fence
    await lease.release()
    assert.equal(lease.fence, held)
    assert.ok(held > last)
    last = held
  }
})

test('ways to connect', async (t) => {
  const url = file()
  const dir = url.slice('file://'.length)
  assert.equal((await dlock.connect(url)).backend, 'file')
  assert.equal((await dlock.connect('file', { dir, connectTimeout: 2000 })).backend, 'file')
  assert.equal((await dlock.connect('redis', { addrs: ['a:1'], db: 3, password: 'secret' })).backend, 'redis')
  const config = path.join(dir, 'dlock.yaml')
  writeFileSync(config, 'redis:\n  enabled: true\n  addrs: ["somewhere:1"]\n')
  assert.equal((await dlock.connect({ config })).backend, 'redis')

  await t.test('equal ones share their locks', async () => {
    const lease = await (await dlock.connect(url)).acquire('k')
    assert.equal(await (await dlock.connect('file', { dir })).tryAcquire('k'), null)
    await lease.release()
  })
})

test('no secret is shown', async () => {
  const client = await dlock.connect('redis', { addrs: ['a:1'], username: 'me', password: 'hunter2' })
  const { inspect } = await import('node:util')
  assert.ok(!inspect(client).includes('hunter2'))
  assert.ok(!inspect(await failure(dlock.connect('redis://me:hunter2@host:port'))).includes('hunter2'))
})

test('the default client, services and register', async () => {
  const source = `
    import assert from 'node:assert/strict'
    import * as dlock from 'dlock-rs'
    await using_()
    async function using_() {
      const lease = await dlock.acquire('k')
      assert.equal(await dlock.tryAcquire('k'), null)
      assert.equal((await dlock.contenders('k')).length, 1)
      assert.deepEqual((await dlock.query()).held.map(({ name, mode }) => [name, mode]), [['k', 'exclusive']])
      assert.equal(await dlock.request('k2', (lease) => lease.name), 'k2')
      const audit = await dlock.connect('memory://one')
      dlock.register('audit', audit)
      const other = await dlock.acquire('k', { service: 'audit' })
      assert.equal(await audit.tryAcquire('k'), null)
      dlock.register('audit', await dlock.connect('memory://two'))
      await (await dlock.acquire('k', { service: 'audit', ttl: 5000 })).release()
      assert.equal(await dlock.request('k', { service: 'audit', ifAvailable: true }, (lease) => lease?.name), 'k')
      assert.equal(await dlock.breakLock('k'), true)
      assert.deepEqual(await lease.release(), { lost: true })
      await other.release()
      const error = await dlock.query({ service: 'nosuch' }).catch((error) => error)
      assert.equal(error.code, 'ERR_DLOCK_INVALID')
      assert.match(error.message, /audit/)
    }`
  process.env.DLOCK_URL = memory()
  const { code, complained } = await run(source)
  delete process.env.DLOCK_URL
  assert.equal(code, 0, complained)
})

test('query tells of what is held and waited for', async () => {
  const client = await dlock.connect(memory())
  const held = await client.acquire('k')
  const waiter = client.acquire('k')
  await until(async () => (await client.query()).pending.length === 1)
  const snapshot = await client.query()
  const { clientId } = snapshot.held[0]
  assert.match(clientId, /^dlock:/)
  assert.ok(held.token.startsWith(clientId))
  const info = { name: 'k', mode: 'exclusive', clientId }
  assert.deepEqual(snapshot, { held: [info], pending: [info] })
  await held.release()
  await (await waiter).release()
  assert.deepEqual(await client.query(), { held: [], pending: [] })
})

test('contenders tell what is known, and null for what is not', async () => {
  const client = await dlock.connect(memory())
  assert.deepEqual(await client.contenders('k'), [])
  const lease = await client.acquire('k', { label: 'report', token: 't' })
  const [holder] = await client.contenders('k')
  const { age, ...rest } = holder
  assert.ok(age >= 0 && age < 60_000)
  const known = { held: true, token: 't', label: 'report', pid: process.pid, fence: lease.fence, ttl: null }
  assert.deepEqual({ ...rest, host: undefined }, { ...known, host: undefined })
  await lease.release()
})

test('capabilities', async () => {
  const { capabilities } = await dlock.connect(memory())
  assert.equal(capabilities.fence, true)
  assert.equal(capabilities.minTtl, 100)
  assert.equal(typeof capabilities.guarantee, 'string')
})

test('errors have class, code, kind and context', async () => {
  const client = await dlock.connect(memory())
  const lease = await client.acquire('k')
  const error = await failure(client.acquire('k', { wait: 0 }))
  assert.ok(error instanceof dlock.LockTimeoutError && error instanceof dlock.DlockError && error instanceof Error)
  const { name, code, kind, temporary, key, backend } = error
  const said = { name: 'LockTimeoutError', code: 'ERR_DLOCK_TIMEOUT', kind: 'timeout', temporary: true, key: 'k', backend: 'memory' }
  assert.deepEqual({ name, code, kind, temporary, key, backend }, said)
  assert.match(error.stack, /surface\.test\.mjs/, 'it says where the call was')
  await lease.release()
})

test('the error of a call that waited says where the call was', async () => {
  const client = await dlock.connect(memory())
  const lease = await client.acquire('k')
  assert.match((await failure(client.acquire('k', { wait: 30 }))).stack, /surface\.test\.mjs/)
  await lease.release()
})

test('close ends waiters and leases, and only its own', async () => {
  const url = memory()
  const [one, two] = [await dlock.connect(url), await dlock.connect(url)]
  const [mine, other] = [await one.acquire('k'), await two.acquire('k2')]
  const waiter = failure(one.acquire('k2'))
  await one.close()
  await one.close()
  assert.equal((await waiter).code, 'ERR_DLOCK_INVALID')
  assert.equal(mine.validFor(), 0)
  assert.equal((await failure(one.acquire('k'))).code, 'ERR_DLOCK_INVALID')
  other.check()
  await other[Symbol.asyncDispose]()
  await two[Symbol.asyncDispose]()
})

test('close tells the holders of its leases', async () => {
  const url = memory()
  const [one, two] = [await dlock.connect(url), await dlock.connect(url)]
  const lease = await one.acquire('k')
  const { signal } = lease
  const block = failure(one.request('k2', (lease) => until(() => lease.signal.aborted)))
  await one.close()
  await until(() => signal.aborted)
  assert.equal(signal.reason.code, 'ERR_DLOCK_LOST')
  assert.throws(() => lease.check(), { code: 'ERR_DLOCK_LOST', message: /closed/ })
  assert.equal((await block).code, 'ERR_DLOCK_LOST')
  assert.deepEqual(await lease.release(), { lost: true })
  await (await two.tryAcquire('k')).release()
})

test('the default client is nobody’s to close', async () => {
  const source = `
    import * as dlock from 'dlock-rs'
    process.env.DLOCK_URL = 'memory://default'
    const lease = await dlock.acquire('k')
    const [mine, others] = [await dlock.connect(), await dlock.connect()]
    const [k2, k3] = [await mine.acquire('k2'), await others.acquire('k3')]
    await mine.close()
    lease.check()
    k3.check()
    console.log(k2.validFor(), await dlock.tryAcquire('k'), (await dlock.acquire('k4')).validFor())`
  const { code, said, complained } = await run(source)
  assert.deepEqual([code, said, complained], [0, '0 null Infinity\n', ''])
})

test('nobody else makes clients and leases', () => {
  assert.throws(() => new dlock.Client(), TypeError)
  assert.throws(() => new dlock.Lease(), TypeError)
  assert.throws(() => new dlock.Lease(Symbol('dlock'), 0, 'k', {}), TypeError)
})

test('await using, where the language has it', async (t) => {
  const source = `
    import { connect } from 'dlock-rs'
    await using client = await connect('memory://x')
    {
      await using lease = await client.acquire('k')
      if (await client.tryAcquire('k') !== null) throw new Error('not held')
    }
    if (await client.tryAcquire('k') === null) throw new Error('still held')
    let error
    try {
      await using lease = await client.acquire('k2')
      await client.breakLock('k2')
    } catch (thrown) { error = thrown }
    if (error?.code !== 'ERR_DLOCK_LOST') throw new Error('the loss was not told')`
  const parses = await run('await using x = null')
  if (parses.code !== 0) return t.skip(`Node ${process.version} has no await using`)
  const { code, complained } = await run(source)
  assert.equal(code, 0, complained)
})

test('what the types name is there', async () => {
  const { readFileSync } = await import('node:fs')
  const types = readFileSync(fileURLToPath(new URL('../../bindings-node/index.d.ts', import.meta.url)), 'utf8')
  const declared = [...types.matchAll(/^export (?:function|class|const) (\w+)/gm)].map(([, name]) => name)
  assert.deepEqual([...new Set(declared)].sort(), Object.keys(dlock.default).sort())
})
