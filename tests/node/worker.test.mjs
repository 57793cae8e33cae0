/** Worker threads share locks; one that ends, however it does, leaves none behind. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import test from 'node:test'
import { Worker } from 'node:worker_threads'

import { connect } from 'dlock-rs'

import { actorUrl, file, memory, redis, sleep, turn, until } from './help.mjs'

/** A worker that does the job and says that it is ready. */
async function start(job) {
  const worker = new Worker(actorUrl, { workerData: job })
  const event = (name) => new Promise((resolve) => worker.once(name, resolve))
  const [ended, failed, message] = [event('exit'), event('error'), event('message')]
  assert.equal(await Promise.race([message, ended]), 'ready')
  return { worker, ended, failed }
}

/** It is to be had within a second. */
async function soonFree(client, key) {
  const lease = await client.acquire(key, { wait: 1000 })
  await lease.release()
}

test('workers share a table in memory', async () => {
  const url = memory()
  const client = await connect(url)
  const { worker, ended } = await start({ url, key: 'k', act: 'hold' })
  assert.equal(await client.tryAcquire('k'), null)
  assert.equal((await client.query()).held.length, 1)
  worker.postMessage('go')
  await ended
  await soonFree(client, 'k')
})

const BACKENDS = { memory: () => memory(), file: () => file(), redis: () => redis() }
for (const [backend, make] of Object.entries(BACKENDS)) {
  test(`${backend}: terminated, or ended, while it holds or waits`, async () => {
    const url = await make()
    const client = await connect(url)
    const bystander = await start({ url, key: 'bystander', act: 'hold', ttl: 1000 })
    for (const end of ['terminate', 'exit', 'throw', 'natural']) {
      const holder = await start({ url, key: end, act: 'hold', end, ttl: 30_000 })
      assert.equal(await client.tryAcquire(end), null)
      if (end === 'terminate') await holder.worker.terminate()
      else holder.worker.postMessage('go')
      if (end === 'throw') assert.equal((await holder.failed).message, 'on purpose')
      await holder.ended
      await soonFree(client, end)
      if (end === 'natural') continue
      const mine = await client.acquire(end)
      const waiter = await start({ url, key: end, act: 'wait', end })
      if (end === 'terminate') await waiter.worker.terminate()
      else waiter.worker.postMessage('go')
      if (end === 'throw') await waiter.failed
      await waiter.ended
      mine.check()
      await mine.release()
      await soonFree(client, end)
    }
    assert.equal(await client.tryAcquire('bystander'), null, 'the other worker still holds its lock')
    bystander.worker.postMessage('go')
    await bystander.ended
  })

  test(`${backend}: many terminations, at any moment`, async () => {
    const url = await make()
    const client = await connect(url)
    const times = backend === 'memory' ? 20 : 90
    const one = async (n) => {
      const key = `k${n % 7}`
      const worker = new Worker(actorUrl, { workerData: { url, key, act: n % 2 ? 'hold' : 'wait', ttl: 20_000 } })
      const gone = once(worker, 'exit')
      // Some before they have loaded anything, some in the middle of it, most holding or waiting.
      if (n % 9 === 0) await turn()
      else if (n % 9 === 1) await sleep(n % 40)
      else await Promise.race([once(worker, 'message'), sleep(500)])
      await worker.terminate()
      await gone
    }
    for (let n = 0; n < times; n += 6) await Promise.all([0, 1, 2, 3, 4, 5].map((m) => one(n + m)))
    for (let n = 0; n < 7; n++) await soonFree(client, `k${n}`)
    await until(async () => (await client.query()).held.length === 0)
  })
}

test('a worker that ends by itself with an idle client and a held lease', async () => {
  const url = memory()
  const source = `
    import('dlock-rs').then(async ({ connect }) => {
      const client = await connect(${JSON.stringify(url)})
      await client.acquire('k')
    })`
  const worker = new Worker(source, { eval: true })
  const [code] = await once(worker, 'exit')
  assert.equal(code, 0)
  await soonFree(await connect(url), 'k')
})

test('a worker that is awaited keeps its pending acquire', async () => {
  const url = memory()
  const client = await connect(url)
  const mine = await client.acquire('k')
  const { worker, ended } = await start({ url, key: 'k', act: 'wait' })
  worker.postMessage('go')
  const obtained = once(worker, 'message')
  await sleep(100) // The worker has nothing else that would keep it.
  await mine.release()
  assert.equal((await obtained)[0], 'obtained')
  await ended
})

test('registering in one thread is seen in the others', async () => {
  const { register, acquire } = await import('dlock-rs')
  const [one, two] = [await connect(memory()), await connect(memory())]
  register('shared', one)
  await (await acquire('k', { service: 'shared' })).release()
  const url = memory()
  const source = `
    import('dlock-rs').then(async ({ connect, register }) => register('shared', await connect(${JSON.stringify(url)})))`
  await once(new Worker(source, { eval: true }), 'exit')
  const lease = await acquire('k', { service: 'shared' })
  assert.equal(await (await connect(url)).tryAcquire('k'), null)
  await (await two.tryAcquire('k')).release()
  await lease.release()
})
