/** Several copies of the package in one process: neither is in the other's way. */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test, { after } from 'node:test'
import { Worker } from 'node:worker_threads'

import * as dlock from 'dlock-rs'

import { again, crossed } from './again.mjs'
import { collect, etcd, failure, file, memory, redis, root, run, until } from './help.mjs'

const dir = mkdtempSync(path.join(tmpdir(), 'dlock-copy-'))
after(() => rmSync(dir, { recursive: true, force: true }))
for (const part of ['index.js', 'lib', 'dlock.node']) {
  cpSync(path.join(root, 'bindings-node', part), path.join(dir, part), { recursive: true })
}
const copy = createRequire(import.meta.url)(path.join(dir, 'index.js'))

for (const [backend, make] of Object.entries({ file: () => file(), redis: () => redis() })) {
  test(`${backend}: they exclude each other`, async () => {
    const url = await make()
    const [one, two] = [await dlock.connect(url), await copy.connect(url)]
    assert.notEqual(one.constructor, two.constructor)
    const lease = await one.acquire('k')
    assert.equal(await two.tryAcquire('k'), null)
    const controller = new AbortController()
    const aborted = failure(two.acquire('k', { signal: controller.signal }))
    controller.abort()
    assert.equal(await aborted, controller.signal.reason)
    const waiting = two.acquire('k', { wait: 10_000 })
    await lease.release()
    const next = await waiting
    assert.ok(next.fence > lease.fence)
    await one.breakLock('k')
    await until(() => next.validFor() === 0 || next.release().then(() => true))
  })
}

test('a table in memory belongs to its copy', async () => {
  const [one, two] = [await dlock.connect('memory://copies'), await copy.connect('memory://copies')]
  const [mine, other] = [await one.acquire('k'), await two.acquire('k')]
  await mine.release()
  await other.release()
  assert.throws(() => dlock.register('x', two), TypeError)
})

test('errors of one are not those of the other, and say the same', async () => {
  const [ours, theirs] = [await failure(dlock.connect('nosuch')), await failure(copy.connect('nosuch'))]
  assert.ok(!(theirs instanceof dlock.DlockError))
  assert.deepEqual([ours.code, ours.message], [theirs.code, theirs.message])
})

test('a process with both ends in order', async () => {
  const url = await redis()
  const source = `
    import { createRequire } from 'node:module'
    import { connect } from 'dlock-rs'
    const copy = createRequire(process.cwd() + '/')(${JSON.stringify(path.join(dir, 'index.js'))})
    await (await connect('${url}')).acquire('k', { ttl: 20_000 })
    await (await copy.connect('${url}')).acquire('k2', { ttl: 20_000 })`
  const { code, complained } = await run(source)
  assert.equal(code, 0, complained)
  const client = await dlock.connect(url)
  for (const key of ['k', 'k2']) await (await client.acquire(key, { wait: 1000 })).release()
})

const BACKENDS = { memory: () => memory(), file: () => file(), redis: () => redis(), etcd: () => etcd() }
for (const [backend, make] of Object.entries(BACKENDS)) {
  test(`${backend}: loaded again over the same addon, each has leases of its own`, async () => {
    await crossed(await make(), dlock.default, again)
  })
}

test('the addon loaded again, too', async () => {
  await crossed(file(), dlock.default, () => again({ addon: true }))
})

test('loaded again in a worker', async () => {
  const url = memory()
  const client = await dlock.connect(url)
  const mine = await Promise.all(['m1', 'm2', 'm3'].map((key) => client.acquire(key)))
  const source = `
    import('${new URL('./again.mjs', import.meta.url)}').then(({ again, crossed }) => crossed('${url}', again(), again))`
  const worker = new Worker(source, { eval: true })
  const failed = new Promise((resolve) => worker.once('error', resolve))
  const code = await Promise.race([new Promise((resolve) => worker.once('exit', resolve)), failed])
  assert.equal(code, 0, code?.stack)
  for (const lease of mine) assert.deepEqual(await lease.release(), { lost: false })
})

test('a number is refused where it stands for nothing', async () => {
  const addon = createRequire(import.meta.url)(path.join(root, 'bindings-node/dlock.node'))
  const copy = () => {
    const hooks = { failure: (kind, message) => Object.assign(new Error(message), { kind }), lost: () => {} }
    return [addon.join(hooks), hooks]
  }
  const [[one, hooks], [two, more]] = [copy(), copy()]
  const client = addon.connectUrl(one, memory())
  const lease = addon.acquire(one, client, 'k')
  for (const [half, number] of [[two, lease], [one, lease + 1], [one, client], [one, 0], [one, -1], [one, 2 ** 53]]) {
    for (const call of [addon.check, addon.release, addon.token, addon.validFor]) {
      assert.throws(() => call(half, number), { kind: 'invalid', message: /no number of this copy/ })
    }
    assert.equal(addon.free(half, number), null)
    assert.equal(addon.abandon(half, number), null)
  }
  for (const call of [addon.ping, addon.query]) assert.throws(() => call(two, client), { kind: 'invalid' })
  for (const wrong of [undefined, {}, 1]) assert.throws(() => addon.check(wrong, lease))
  addon.check(one, lease)
  assert.equal(addon.release(one, lease).loss, null)
  assert.throws(() => addon.check(one, lease), { kind: 'invalid' })
  const next = addon.acquire(one, client, 'k')
  assert.ok(next > lease, 'a number is never given out again')
  addon.free(one, next)
  assert.ok(hooks && more)
})

test('a copy that nobody has any more is collected, and what it held is given back', async () => {
  const url = memory()
  const client = await dlock.connect(url)
  const listeners = process.listenerCount('exit')
  const use = async (key, ref) => {
    const copy = again()
    void (await (await copy.connect(url)).acquire(key, { ref })).signal
    return new WeakRef(copy.Lease)
  }
  const gone = []
  for (let n = 0; n < 20; n++) gone.push(await use(`k${n}`, n % 2 === 0))
  assert.equal(process.listenerCount('exit'), listeners)
  await until(async () => {
    await collect()
    return gone.every((one) => one.deref() === undefined) && (await client.query()).held.length === 0
  })
})
