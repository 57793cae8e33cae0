/** AbortSignals: a call ends at once with the signal's reason, and leaves nothing. */
import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import test from 'node:test'

import { connect } from 'dlock-rs'

import { collect, failure, gc, memory, redis, sleep, turn, until } from './help.mjs'

const client = await connect(memory())
const CALLS = {
  acquire: (options) => client.acquire('k', options),
  tryAcquire: (options) => client.tryAcquire('k', options),
  request: (options) => client.request('k', options, () => assert.fail('called')),
}

for (const [name, call] of Object.entries(CALLS)) {
  test(`${name}: a signal that was aborted before`, async () => {
    const reason = { any: 'value' }
    assert.equal(await failure(call({ signal: AbortSignal.abort(reason) })), reason)
    assert.equal(await failure(call({ signal: AbortSignal.abort('text') })), 'text')
    assert.equal((await failure(call({ signal: AbortSignal.abort() }))).name, 'AbortError')
    assert.deepEqual(await client.query(), { held: [], pending: [] })
  })
}

for (const name of ['acquire', 'request']) {
  test(`${name}: aborted while it waits`, async () => {
    const lease = await client.acquire('k')
    const controller = new AbortController()
    const waiting = failure(CALLS[name]({ signal: controller.signal }))
    await turn()
    const reason = new Error('mine')
    const { stack } = reason
    controller.abort(reason)
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
    assert.equal(await waiting, reason)
    assert.equal(reason.stack, stack, 'the reason is handed on as it is')
    lease.check()
    await lease.release()
    await (await client.acquire('k', { wait: 5000 })).release()
  })
}

test('a reason that is no object', async () => {
  const lease = await client.acquire('k')
  const controller = new AbortController()
  const waiting = failure(client.acquire('k', { signal: controller.signal }))
  controller.abort('text')
  assert.equal(await waiting, 'text')
  await lease.release()
})

test('aborted after the grant: no effect', async () => {
  const controller = new AbortController()
  const { signal } = controller
  const lease = await client.acquire('k', { signal })
  const waiting = client.acquire('k', { signal })
  await lease.release()
  const next = await waiting
  controller.abort()
  next.check()
  assert.equal(getEventListeners(signal, 'abort').length, 0)
  await next.release()
})

test('aborted at any moment of its way: nothing stays held', async (t) => {
  const waiter = await connect(await redis())
  let [given, aborted] = [0, 0]
  for (let i = 0; i < 300; i++) {
    const controller = new AbortController()
    const { signal } = controller
    const call = waiter.acquire('k', { signal, ttl: 20_000 })
    const end = call.then(
      (lease) => (given++, lease.release()),
      (error) => (aborted++, assert.equal(error, signal.reason)),
    )
    for (let pause = i % 6; pause > 0; pause--) await turn()
    controller.abort()
    await end
  }
  t.diagnostic(`${given} granted, ${aborted} aborted`)
  assert.ok(given > 0 && aborted > 0, 'both were seen')
  // Far below the ttl: nothing that was given up is left.
  await (await waiter.acquire('k', { wait: 5000 })).release()
  await until(async () => (await waiter.contenders('k')).length === 0)
})

test('100,000 calls on one signal: flat heap, no listeners, the own handler still runs', async (t) => {
  const controller = new AbortController()
  const { signal } = controller
  let called = 0
  signal.onabort = () => called++
  const round = async (calls) => {
    const lease = await client.acquire('k')
    for (let i = 0; i < calls / 2; i += 50) {
      // Half of them find it busy and wait, half come in time.
      const waiting = Array.from({ length: 50 }, () => client.acquire('k', { signal, wait: 1 }).catch(() => {}))
      await Promise.all(waiting)
    }
    await lease.release()
    for (let i = 0; i < calls / 2; i++) await (await client.acquire('k2', { signal })).release()
    await collect()
    return process.memoryUsage().heapUsed
  }
  const before = await round(10_000)
  const after = await round(100_000)
  t.diagnostic(`heap ${(before / 1e6).toFixed(1)} MB, then ${(after / 1e6).toFixed(1)} MB`)
  assert.ok(after - before < 2e6, `${before} -> ${after}`)
  assert.equal(getEventListeners(signal, 'abort').length, 1, 'the own one')
  assert.equal(called, 0)
  controller.abort()
  assert.equal(called, 1)
})

test('many calls at a time on one signal: no warning, all end', async () => {
  const warnings = []
  const note = (warning) => warnings.push(warning)
  process.on('warning', note)
  const lease = await client.acquire('k')
  const controller = new AbortController()
  const waiting = Array.from({ length: 50 }, () => failure(client.acquire('k', { signal: controller.signal })))
  await sleep(20)
  controller.abort()
  for (const error of await Promise.all(waiting)) assert.equal(error, controller.signal.reason)
  await lease.release()
  await sleep(20)
  process.off('warning', note)
  assert.deepEqual(warnings, [])
})

test('AbortSignal.timeout', async () => {
  const lease = await client.acquire('k')
  const waiting = failure(client.acquire('k', { signal: AbortSignal.timeout(30) }))
  gc()
  assert.equal((await waiting).name, 'TimeoutError')
  await lease.release()
})
