/** The package loaded again over the same addon, as a cleared module cache and test runners do; and what then must hold. */
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const { cache } = createRequire(import.meta.url)
const index = fileURLToPath(new URL('../../bindings-node/index.js', import.meta.url))

/** Another copy of the package's JavaScript, over the same addon or, if asked for, over one that is loaded anew as well. */
export function again({ addon = false } = {}) {
  const folder = index.slice(0, -'index.js'.length)
  const mine = (file) => file.startsWith(folder) && (addon || !file.endsWith('.node'))
  const before = Object.entries(cache).filter(([file]) => mine(file))
  for (const [file] of before) delete cache[file]
  try {
    // By a require of its own: each keeps all that it loaded.
    return createRequire(import.meta.url)(index)
  } finally {
    for (const file of Object.keys(cache).filter(mine)) delete cache[file]
    for (const [file, module] of before) cache[file] = module
  }
}

/** Two copies, each with leases of its own: none ends, hears of or speaks for another's. */
export async function crossed(url, first, makeSecond) {
  const one = await first.connect(url)
  const old = await one.acquire('old')
  const { signal } = old
  const kept = await one.acquire('kept')
  const waiting = one.acquire('old')
  const second = makeSecond()
  const two = await second.connect(url)
  // As many as the first has, in the same order.
  const theirs = [await two.acquire('a'), await two.acquire('b'), await two.acquire('c')]

  assert.deepEqual([old.name, kept.name], ['old', 'kept'])
  for (const lease of [old, kept, ...theirs]) lease.check()
  assert.equal(new Set([old, kept, ...theirs].map((lease) => lease.token)).size, 5)
  assert.equal((await old.release()).lost, false)
  for (const lease of [kept, ...theirs]) lease.check()
  for (const key of ['a', 'b', 'c', 'kept']) assert.equal(await one.tryAcquire(key), null, `${key} is still held`)
  const next = await waiting
  assert.ok(next instanceof first.Lease && !(next instanceof second.Lease))
  assert.equal(next.name, 'old')
  for (const lease of theirs) assert.equal((await lease.release()).lost, false)
  for (const lease of [kept, next]) lease.check()
  assert.equal(await two.tryAcquire('old'), null)
  assert.equal(signal.aborted, false)

  // Each hears of its own losses, by errors of its own classes.
  const lost = [[first, next], [second, await two.acquire('d')]]
  for (const [copy, lease] of lost) {
    const told = new Promise((done) => lease.signal.addEventListener('abort', done))
    assert.equal(await one.breakLock(lease.name), true)
    await lease.renew().catch(() => {}) // Where a loss shows at the next look only.
    await told
    assert.ok(lease.signal.reason instanceof copy.LockLostError)
    assert.throws(() => lease.check(), copy.LockLostError)
    assert.equal((await lease.release()).lost, true)
  }
  kept.check()
  for (const copy of [first, second]) await assert.rejects(copy.connect('nosuch'), copy.InvalidArgumentError)
  await assert.rejects(two.acquire('kept', { wait: 0 }), second.LockTimeoutError)
  assert.throws(() => first.register('x', two), { code: 'ERR_INVALID_ARG_TYPE', message: /this copy/ })
  await kept.release()
}
