// @ts-check
/**
 * A write with a fencing token: the database rejects the write of a former holder, however late it comes.
 *
 * No lock can stop a process that sleeps between its last check of the lock and its write. The database can. It stores
 * the greatest fencing token it has seen and rejects a write with a smaller one.
 */
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'

import * as dlock from 'dlock-rs'
// @ts-expect-error: it brings no types
import initSqlJs from 'sql.js'

const client = await dlock.connect('memory://fenced-write')
const { Database } = await initSqlJs()
const store = new Database()
store.run('CREATE TABLE price (item TEXT PRIMARY KEY, cents INTEGER, fence INTEGER NOT NULL)')
store.run("INSERT INTO price VALUES ('tea', 250, 0)")

/**
 * Writes if no later holder has written. One statement: the comparison and the write can't be torn apart.
 * @param {dlock.Lease} lease
 * @param {number} cents
 */
function write(lease, cents) {
  // A bigint, which this driver takes as text; in a column of integers it is a number again.
  const fence = String(lease.fence)
  store.run("UPDATE price SET cents = ?, fence = ? WHERE item = 'tea' AND fence <= ?", [cents, fence, fence])
  return store.getRowsModified() === 1
}

// A worker without renewal that sleeps past its ttl, as a paused virtual machine would …
const sleepy = await client.acquire('price:tea', { ttl: 200, autoRenew: false })
await sleep(300)

// … so that another one has the lock, and writes.
await client.request('price:tea', { wait: 5_000 }, (awake) => {
  const written = write(awake, 300)
  console.log(`fence ${awake.fence}: written ${written}`)
  assert(written)
})

// The first wakes up and knows nothing yet.
const late = write(sleepy, 199)
console.log(`fence ${sleepy.fence}: written ${late}`)
assert.deepEqual(await sleepy.release(), { lost: true })

const [[cents, type]] = store.exec('SELECT cents, typeof(fence) FROM price')[0].values
console.log(`the price is ${cents}`)
assert.equal(late, false)
assert.deepEqual([cents, type], [300, 'integer'])
