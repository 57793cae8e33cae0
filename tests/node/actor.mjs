/** A process or worker that takes a lock or waits for one, says so, and ends as it is told. */
import { once } from 'node:events'
import { isMainThread, parentPort, workerData } from 'node:worker_threads'

import { connect } from 'dlock-rs'

const job = isMainThread ? JSON.parse(process.argv[2]) : workerData
const say = (text) => (isMainThread ? process.stdout.write(`${text}\n`) : parentPort.postMessage(text))
const told = isMainThread ? once(process.stdin, 'data') : once(parentPort, 'message')

const client = await connect(job.url)
let lease
if (job.act === 'hold') {
  lease = await client.acquire(job.key, { ttl: job.ttl })
  say('ready')
} else {
  client.acquire(job.key, { ttl: job.ttl }).then(
    () => say('obtained'),
    (error) => say(error.kind),
  )
  // By then it has been to the backend.
  setTimeout(() => say('ready'), 50)
}
await told
lease?.check()
if (job.end === 'exit') process.exit()
if (job.end === 'throw') {
  setImmediate(() => {
    throw new Error('on purpose')
  })
}
if (isMainThread) process.stdin.destroy()
