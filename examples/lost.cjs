// @ts-check
/**
 * A lost lock stops the work.
 *
 * You can lose a lock while you hold it, for example by `breakLock`, a suspended machine or a dead server. In this
 * example the limit `maxHold` ends the lease, so a job that hangs doesn't block the other workers for ever.
 */
'use strict'

const assert = require('node:assert/strict')
const { setTimeout: sleep } = require('node:timers/promises')
const dlock = require('dlock-rs')

async function main() {
  const client = await dlock.connect('memory://lost')

  // To ask, between the parts of the work.
  let done = 0
  const asking = client.request('import', { maxHold: 300 }, async (lease) => {
    while (done < 100) {
      lease.check() // throws LockLostError; from here on somebody else may be working
      await sleep(20)
      done++
    }
  })
  await assert.rejects(asking, dlock.LockLostError)
  assert(done > 0 && done < 100)
  console.log(`stopped after ${done} of 100 parts`)

  // To be told: whatever takes an AbortSignal ends when the lock is lost.
  const lease = await client.acquire('import', { maxHold: 200 })
  await assert.rejects(sleep(10_000, undefined, { signal: lease.signal }), { name: 'AbortError' })
  assert.equal(lease.validFor(), 0)
  console.log(`told by the signal: ${lease.signal.reason.message}`)
  assert.deepEqual(await lease.release(), { lost: true })

  await client.request('import', { wait: 1_000 }, () => console.log('the next worker has it'))
}

main()
