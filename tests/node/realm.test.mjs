/** The package in another realm than Node's own, on every backend: what crosses the border is known by its shape. */
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import test from 'node:test'
import vm from 'node:vm'

import { collect, etcd, failure, file, memory, redis, run, until } from './help.mjs'
import { bare, furnished, inside } from './realm.mjs'

const outer = createRequire(import.meta.url)('dlock-rs')
const BACKENDS = { memory: () => memory(), file: () => file(), redis: () => redis(), etcd: () => etcd() }

/** All that crosses the border between a realm of this kind and Node's own. */
async function cross(url, context) {
  const dlock = inside(context)
  const of = (text) => vm.runInContext(text, context)
  const [client, other] = [await dlock.connect(url), await outer.connect(url)]
  const free = async () => {
    const lease = await other.tryAcquire('k')
    await lease?.release()
    return lease !== null
  }

  assert.equal(await client.request('k', () => 'value'), 'value')
  assert.ok(await free(), 'request() ends after its release')
  assert.equal(await client.request('k', of("async () => 'theirs'")), 'theirs')
  assert.equal(await client.request('k', of("() => ({ then: (done) => done('thenable') })")), 'thenable')
  const thrown = of("new RangeError('theirs')")
  assert.equal(await failure(client.request('k', () => Promise.reject(thrown))), thrown)
  assert.ok(await free())

  const lease = await client.acquire('k', of('({ ttl: 20000, retry: [2, 5], label: "theirs" })'))
  assert.equal(await other.tryAcquire('k'), null)
  await lease.renew()
  assert.equal(lease.ttl, 20_000)
  const [holder] = await client.contenders('k')
  assert.equal(holder.fence, lease.fence)
  assert.deepEqual({ ...(await lease.release()) }, { lost: false })
  assert.ok(await free())
  const { asyncDispose } = Symbol
  await (await client.acquire('k'))[asyncDispose]()
  assert.ok(await free())

  // A signal of Node's realm, and one that only looks like one.
  const mine = await other.acquire('k')
  const controller = new AbortController()
  const aborted = [failure(client.acquire('k', { signal: controller.signal }))]
  const shaped = of('({ aborted: false, addEventListener(_, call) { this.call = call }, removeEventListener() {} })')
  shaped.reason = thrown
  aborted.push(failure(client.request('k', { signal: shaped }, () => assert.fail('called'))))
  controller.abort(thrown)
  shaped.call()
  assert.deepEqual(await Promise.all(aborted), [thrown, thrown])
  const busy = await failure(client.acquire('k', { wait: 0 }))
  assert.ok(busy instanceof dlock.LockTimeoutError && busy instanceof of('Error'))
  mine.check()
  await mine.release()

  // A loss, told by everything.
  const lost = await client.acquire('k')
  const told = new Promise((done) => lost.signal.addEventListener('abort', done))
  await other.breakLock('k')
  await lost.renew().catch(() => {})
  await told
  assert.ok(lost.signal.reason instanceof dlock.LockLostError)
  assert.deepEqual({ ...(await lost.release()) }, { lost: true })
  assert.ok((await failure(lost[asyncDispose]())) instanceof dlock.LockLostError)
  const robbed = failure(client.request('k', async () => void (await other.breakLock('k'))))
  assert.ok((await robbed) instanceof dlock.LockLostError)

  // What is given is of the realm that asked.
  const array = of('Array.prototype')
  const object = of('Object.prototype')
  const held = await client.acquire('k')
  const snapshot = await client.query()
  for (const list of [await client.contenders('k'), snapshot.held, snapshot.pending]) {
    assert.equal(Object.getPrototypeOf(list), array)
    for (const one of list) assert.equal(Object.getPrototypeOf(one), object)
  }
  for (const one of [client.capabilities, snapshot]) assert.equal(Object.getPrototypeOf(one), object)
  for (const call of [client.ping(), held.renew(), client.breakLock('free')]) {
    assert.ok(call instanceof of('Promise'))
    await call
  }
  const combined = await failure(client.request('-k', () => {}))
  assert.deepEqual([combined.name, combined instanceof DOMException], ['NotSupportedError', true])
  await held.release()
  await client.close()
}

for (const [backend, make] of Object.entries(BACKENDS)) {
  test(backend, async (t) => {
    const url = await make()
    await t.test("from a realm with Node's globals", () => cross(url, furnished()))
    await t.test('from a realm of the language alone', () => cross(url, bare()))
  })
}

test('options of a connection from another realm', async () => {
  const context = bare()
  const dlock = inside(context)
  const options = vm.runInContext("({ addrs: ['127.0.0.1:1'], db: 3, connectTimeout: 500 })", context)
  const client = await dlock.connect('redis', options)
  assert.ok((await failure(client.ping())) instanceof dlock.BackendError)
  const error = await failure(dlock.connect('redis', vm.runInContext('({ addrs: [5] })', context)))
  assert.equal(error.code, 'ERR_INVALID_ARG_TYPE')
  assert.ok(error instanceof vm.runInContext('TypeError', context))
})

test('a lease of another realm that is collected is released, and said', async () => {
  const url = memory()
  const client = await inside(bare()).connect(url)
  const warned = new Promise((done) => process.once('warning', done))
  await client.acquire('forgotten')
  await collect()
  assert.equal((await warned).code, 'DLOCK_UNRELEASED')
  await (await client.acquire('forgotten', { wait: 5000 })).release()
})

test('a realm that nobody has any more is collected, and what it held is given back', async () => {
  const url = memory()
  const client = await outer.connect(url)
  const use = async (key) => {
    const context = bare()
    void (await (await inside(context).connect(url)).acquire(key)).signal
    return new WeakRef(context)
  }
  const gone = []
  for (let n = 0; n < 12; n++) gone.push(await use(`k${n}`))
  await until(async () => {
    await collect()
    return gone.every((one) => one.deref() === undefined) && (await client.query()).held.length === 0
  })
})

test('a process that only used it in another realm gives back what it held', async () => {
  const url = await redis()
  const { code, complained } = await run(`
    import { bare, inside } from './tests/node/realm.mjs'
    for (const key of ['k', 'k2']) await (await inside(bare()).connect('${url}')).acquire(key, { ttl: 20_000 })
    process.exit()`)
  assert.equal(code, 0, complained)
  const client = await outer.connect(url)
  for (const key of ['k', 'k2']) await (await client.acquire(key, { wait: 1000 })).release()
})
