/** `request`, which has the shape of Web Locks. */
import assert from 'node:assert/strict'
import test from 'node:test'

import { connect, Lease } from 'dlock-rs'

import { collect, failure, memory, redis, servers, sleep, turn } from './help.mjs'

const client = await connect(memory())
const free = async () => {
  const lease = await client.tryAcquire('k')
  await lease?.release()
  return lease !== null
}

test('resolves to what the callback gives, after the release', async () => {
  const value = {}
  assert.equal(await client.request('k', () => value), value)
  assert.equal(await client.request('k', async () => value), value)
  assert.equal(await client.request('k', {}, () => undefined), undefined)
  const inside = await client.request('k', async (lease) => {
    assert.ok(lease instanceof Lease)
    assert.deepEqual([lease.name, lease.mode], ['k', 'exclusive'])
    lease.check()
    assert.equal(await client.tryAcquire('k'), null)
    return 'done'
  })
  assert.equal(inside, 'done')
  assert.ok(await free())
})

test('a callback that throws or rejects releases', async () => {
  const error = new Error('mine')
  assert.equal(await failure(client.request('k', () => { throw error })), error)
  assert.equal(await failure(client.request('k', async () => { throw error })), error)
  assert.equal(await failure(client.request('k', () => Promise.reject(undefined))), undefined)
  assert.ok(await free())
})

test('a callback that never settles keeps the lock, whatever is collected', async () => {
  const own = await connect(memory())
  void own.request('k', () => new Promise(() => {}))
  for (let i = 0; i < 3; i++) await collect()
  assert.equal(await own.tryAcquire('k'), null)
  await own.breakLock('k')
})

test('in order, one at a time', async () => {
  const seen = []
  await Promise.all(
    [1, 2, 3, 4].map((n) =>
      client.request('k', async () => {
        seen.push(n)
        await turn()
        seen.push(n)
      }),
    ),
  )
  assert.deepEqual(seen, [1, 1, 2, 2, 3, 3, 4, 4])
})

test('a lease released in the callback is released once', async () => {
  const value = await client.request('k', async (lease) => {
    assert.deepEqual(await lease.release(), { lost: false })
    const other = await client.acquire('k')
    return other
  })
  value.check()
  await value.release()
})

test('ifAvailable gives null when it is busy', async () => {
  assert.equal(await client.request('k', { ifAvailable: true }, (lease) => lease?.name), 'k')
  const lease = await client.acquire('k')
  assert.equal(await client.request('k', { ifAvailable: true }, (lease) => lease), null)
  const error = new Error('mine')
  assert.equal(await failure(client.request('k', { ifAvailable: true }, () => { throw error })), error)
  await lease.release()
})

test('steal takes it from its holder, whose request rejects', async () => {
  let lost
  const robbed = failure(
    client.request('k', async (lease) => {
      await new Promise((resolve) => lease.signal.addEventListener('abort', resolve))
      lost = lease.signal.reason
    }),
  )
  await turn()
  assert.equal(await client.request('k', { steal: true }, () => 'mine'), 'mine')
  assert.equal((await robbed).code, 'ERR_DLOCK_LOST')
  assert.equal(lost.code, 'ERR_DLOCK_LOST')
  assert.equal(await client.request('k', { steal: true }, () => 'free'), 'free')
})

test('after a loss it waits for the callback, whose own rejection comes first', async () => {
  let ended = false
  const lost = failure(
    client.request('k', async () => {
      await client.breakLock('k')
      await sleep(20)
      ended = true
      return 'value'
    }),
  )
  assert.equal((await lost).code, 'ERR_DLOCK_LOST')
  assert.ok(ended)
  const own = new Error('mine')
  const both = client.request('k', async () => {
    await client.breakLock('k')
    throw own
  })
  assert.equal(await failure(both), own)
})

test('what does not go together, as Web Locks have it', async () => {
  const never = () => assert.fail('called')
  const { signal } = new AbortController()
  for (const options of [
    { steal: true, ifAvailable: true },
    { steal: true, mode: 'shared' },
    { signal, steal: true },
    { signal, ifAvailable: true },
    { signal: AbortSignal.abort(), ifAvailable: true },
  ]) {
    const error = await failure(client.request('k', options, never))
    assert.ok(error instanceof DOMException)
    assert.equal(error.name, 'NotSupportedError')
  }
  assert.equal((await failure(client.request('-k', never))).name, 'NotSupportedError')
  assert.equal((await failure(client.request('k', { mode: 'other' }, never))).code, 'ERR_INVALID_ARG_VALUE')
  assert.equal(await client.request('k', { mode: 'exclusive', steal: false, ifAvailable: false, signal }, () => 5), 5)
})

test("the same combinations as Node's own, where it has Web Locks", async (t) => {
  const { locks } = globalThis.navigator ?? {}
  if (!locks) return t.skip(`Node ${process.version} has no Web Locks`)
  const never = () => assert.fail('called')
  const { signal } = new AbortController()
  const aborted = AbortSignal.abort()
  const combinations = [{ steal: true, ifAvailable: true }, { steal: true, mode: 'shared' }, { signal, steal: true }]
  combinations.push({ signal, ifAvailable: true }, { signal: aborted })
  for (const options of combinations) {
    const theirs = await failure(locks.request('k', options, never))
    const ours = await failure(client.request('k', options, never))
    assert.deepEqual([ours.name, ours.constructor], [theirs.name, theirs.constructor], JSON.stringify(options))
  }
  assert.equal((await failure(client.request('-k', never))).name, (await failure(locks.request('-k', never))).name)
})

test('a release that is not confirmed rejects where it was asked for, and only there', async () => {
  const url = await redis()
  const client = await connect(url)
  const explicit = await client.acquire('k2')
  const disposed = await client.acquire('k3')
  const asked = []
  const value = await client.request('k', () => {
    servers.get(url).kill('SIGSTOP')
    asked.push(failure(explicit.release()), disposed[Symbol.asyncDispose]())
    return 'value'
  })
  assert.equal(value, 'value')
  const [error] = await Promise.all(asked)
  assert.deepEqual([error.code, error.temporary], ['ERR_DLOCK_BACKEND', true])
  for (const lease of [explicit, disposed]) assert.equal(lease.validFor(), 0)
  servers.get(url).kill('SIGCONT')
  for (const key of ['k', 'k2', 'k3']) await (await client.acquire(key, { wait: 20_000 })).release()
})
