/** A lease after its end, when it is lost, when it is forgotten. */
import assert from 'node:assert/strict'
import test from 'node:test'

import { connect, LockLostError, NotHeldError } from 'dlock-rs'

import { collect, failure, file, memory, run, sleep, until } from './help.mjs'

const client = await connect(memory())

test('used after its release', async () => {
  const lease = await client.acquire('k')
  await lease.release()
  const next = await client.acquire('k')
  assert.deepEqual(await lease.release(), { lost: false })
  assert.throws(() => lease.check(), NotHeldError)
  assert.equal((await failure(lease.renew())).code, 'ERR_DLOCK_NOT_HELD')
  assert.equal((await failure(lease.renew(5000))).key, 'k')
  assert.equal(lease.validFor(), 0)
  assert.equal(lease.signal.aborted, false)
  await lease[Symbol.asyncDispose]()
  next.check()
  await next.release()
})

test('released twice at a time', async () => {
  const lease = await client.acquire('k')
  const all = await Promise.all([lease.release(), lease.release(), lease[Symbol.asyncDispose]()])
  assert.deepEqual(all, [{ lost: false }, { lost: false }, undefined])
})

test('a loss is told by everything', async () => {
  const lease = await client.acquire('k')
  const { signal } = lease
  assert.equal(lease.signal, signal)
  await client.breakLock('k')
  const next = await client.acquire('k', { wait: 5000 })
  await until(() => signal.aborted)
  assert.ok(signal.reason instanceof LockLostError)
  assert.equal(signal.reason.key, 'k')
  assert.throws(() => lease.check(), LockLostError)
  assert.equal(lease.validFor(), 0)
  assert.equal((await failure(lease.renew())).code, 'ERR_DLOCK_LOST')
  assert.deepEqual(await lease.release(), { lost: true })
  assert.deepEqual(await lease.release(), { lost: true })
  assert.throws(() => lease.check(), LockLostError)
  assert.ok((await failure(lease[Symbol.asyncDispose]())) instanceof LockLostError)
  next.check()
  await next.release()
})

test('a signal that is first asked for after the loss', async () => {
  const lease = await client.acquire('k')
  await client.breakLock('k')
  await until(() => lease.validFor() === 0)
  const { signal } = lease
  await until(() => signal.aborted)
  await lease.release()
  const other = await client.acquire('k')
  await client.breakLock('k')
  await other.release()
  assert.equal(other.signal.aborted, true)
  assert.ok(other.signal.reason instanceof LockLostError)
})

test('the signal of a lease that was released stays as it is', async () => {
  const lease = await client.acquire('k')
  const { signal } = lease
  await lease.release()
  // Its number may be another lease's now.
  const other = await client.acquire('k')
  await client.breakLock('k')
  await until(() => other.validFor() === 0)
  await sleep(20)
  assert.equal(signal.aborted, false)
  await other.release()
})

test('the end of a ttl that is not renewed', async () => {
  const lease = await client.acquire('k', { ttl: 150, autoRenew: false })
  assert.ok(lease.validFor() <= 150)
  await until(() => lease.signal.aborted)
  assert.equal(lease.signal.reason.code, 'ERR_DLOCK_LOST')
  assert.deepEqual(await lease.release(), { lost: true })
})

test('renew with another ttl', async () => {
  const lease = await client.acquire('k', { ttl: 200, autoRenew: false })
  assert.equal(await lease.renew(20_000), undefined)
  assert.equal(lease.ttl, 20_000)
  assert.ok(lease.validFor() > 200)
  await lease.release()
  assert.equal(lease.ttl, 20_000)
})

test('collected while held: released, and said', async () => {
  const own = await connect(file())
  const warnings = []
  const note = (warning) => warnings.push(warning)
  process.on('warning', note)
  await own.acquire('forgotten "k"')
  await own.acquire('watched').then((lease) => void lease.signal)
  await (await own.acquire('released')).release()
  await until(async () => {
    await collect()
    return warnings.length === 2
  })
  process.off('warning', note)
  assert.deepEqual(warnings.map(({ code }) => code), ['DLOCK_UNRELEASED', 'DLOCK_UNRELEASED'])
  assert.match(warnings.map(({ message }) => message).join(), /forgotten \\"k\\"/)
  for (const key of ['forgotten "k"', 'watched']) await (await own.acquire(key, { wait: 5000 })).release()
})

test('a lease that is still used is not collected', async () => {
  const lease = await client.acquire('k')
  for (let i = 0; i < 3; i++) await collect()
  lease.check()
  await lease.release()
})

test('a client that nobody has any more leaves its leases working', async () => {
  const url = memory()
  const lease = await (await connect(url)).acquire('k')
  for (let i = 0; i < 3; i++) await collect()
  lease.check()
  assert.equal(await (await connect(url)).tryAcquire('k'), null)
  await lease.release()
})

test('many leases, most at once', async () => {
  const leases = await Promise.all(Array.from({ length: 2000 }, (_, n) => client.acquire(`many-${n}`)))
  assert.equal(new Set(leases.map((lease) => lease.fence)).size, 2000)
  await collect()
  await Promise.all(leases.map((lease) => lease.release()))
  assert.deepEqual(await client.query(), { held: [], pending: [] })
})

test('100,000 leases: a flat heap', async (t) => {
  const round = async (times) => {
    for (let i = 0; i < times; i++) await (await client.acquire(`key-${i % 10}`)).release()
    await collect()
    return process.memoryUsage()
  }
  const before = await round(20_000)
  const after = await round(100_000)
  t.diagnostic(`heap ${before.heapUsed} -> ${after.heapUsed}, rss ${before.rss} -> ${after.rss}`)
  assert.ok(after.heapUsed - before.heapUsed < 2e6)
})

for (const flag of ['--unhandled-rejections=strict', '--unhandled-rejections=throw']) {
  test(`a loss that nobody handles ends no process, with ${flag}`, async () => {
    const source = `
      import { connect } from 'dlock-rs'
      const client = await connect('memory://x')
      const lease = await client.acquire('k')
      const other = await client.acquire('k2', { ttl: 100, autoRenew: false })
      lease.signal; other.signal
      await client.breakLock('k')
      await new Promise((resolve) => setTimeout(resolve, 300))
      console.log('alive', lease.signal.aborted, other.signal.aborted)`
    const { code, said, complained } = await run(source, [flag])
    assert.deepEqual([code, said.trim()], [0, 'alive true true'], complained)
  })
}
