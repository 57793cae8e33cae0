/** Two copies of the package in one process: each its own world, neither in the other's way. */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test, { after } from 'node:test'

import * as dlock from 'dlock-rs'

import { failure, file, redis, root, run, until } from './help.mjs'

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
