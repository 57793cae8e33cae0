// @ts-check
/** Try once, wait with a timeout, or cancel: ways to limit the wait for a lock. */
import assert from 'node:assert/strict'

import * as dlock from 'dlock-rs'

const client = await dlock.connect('memory://try-once')

await client.request('nightly-report', { label: 'the other worker' }, async () => {
  // Now or never.
  assert.equal(await client.tryAcquire('nightly-report'), null)
  console.log('busy, so this worker does something else')

  // A wait that ends. The deadline is for the whole wait and never starts again.
  const began = performance.now()
  await assert.rejects(client.acquire('nightly-report', { wait: 200 }), (error) => {
    assert(error instanceof dlock.LockTimeoutError)
    console.log(`gave up after ${((performance.now() - began) / 1000).toFixed(1)} s: ${error.message}`)
    return true
  })

  // A wait that somebody ends, for instance because the client that asked for the report has gone.
  const gone = new AbortController()
  const waiting = client.acquire('nightly-report', { signal: gone.signal })
  gone.abort()
  await assert.rejects(waiting, { name: 'AbortError' })
  console.log('not needed any more')

  // Who has it?
  const [holder] = await client.contenders('nightly-report')
  assert.equal(holder?.label, 'the other worker')
  console.log(`held by ${holder.label}, process ${holder.pid}`)
})

await client.request('nightly-report', { ifAvailable: true }, (lease) => {
  assert.notEqual(lease, null)
  console.log('free again')
})
