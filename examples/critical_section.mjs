// @ts-check
/** A critical section with a distributed lock: one at a time, among all tasks, threads and processes of this user. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker, isMainThread, workerData } from 'node:worker_threads'

import * as dlock from 'dlock-rs'

/** @type {Int32Array} */
const balance = isMainThread ? new Int32Array(new SharedArrayBuffer(4)) : workerData

/**
 * Reads, waits, writes back: whatever another one deposits meanwhile would be gone.
 * @param {number} amount
 */
async function add(amount) {
  const before = Atomics.load(balance, 0)
  await sleep(1)
  Atomics.store(balance, 0, before + amount)
}

/**
 * A block: the lock is given back however it ends.
 * @param {number} amount
 */
function deposit(amount) {
  return dlock.request('account:7', () => add(amount))
}

/**
 * The same with the lease in hand. From Node 24 on, `await using lease = …` needs no finally.
 * @param {number} amount
 */
async function depositByHand(amount) {
  const lease = await dlock.acquire('account:7')
  try {
    await add(amount)
  } finally {
    await lease.release()
  }
}

const mine = Promise.all(Array.from({ length: 10 }, () => Promise.all([deposit(1), depositByHand(1)])))
if (isMainThread) {
  const thread = new Worker(new URL(import.meta.url), { workerData: balance })
  const [code] = await once(thread, 'exit')
  await mine
  console.log(`20 deposits in each of two threads make ${balance[0]}`)
  assert.deepEqual([code, balance[0]], [0, 40])
} else {
  await mine
}
