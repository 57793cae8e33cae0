/**
 * The workloads in Node, and their raw baselines: async-mutex, and the two commands over ioredis. For bench.py, which lets
 * slices of both run in turns.
 *
 * `bench.mjs URL` reads a line for each slice and answers with its figures, as JSON: `a PAIRS` of one client, `b TASKS` of
 * many tasks on one key, `d TASKS` on a key each; `a-raw`, `b-raw` and `d-raw` are the baselines.
 */
import { createInterface } from 'node:readline'

import { Mutex } from 'async-mutex'
import { connect } from 'dlock-rs'
import { Redis } from 'ioredis'

const DELETE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
// Milliseconds: how long a slice of many lasts.
const SLICE = 400

const url = process.argv[2]
const client = await connect(url)

async function ours(key, visit) {
  const lease = await client.acquire(key)
  visit()
  await lease.release()
}

/** One of async-mutex a key. */
const mutexes = new Map()

async function own(key, visit) {
  let mutex = mutexes.get(key)
  if (mutex === undefined) mutexes.set(key, (mutex = new Mutex()))
  const release = await mutex.acquire()
  visit()
  release()
}

/** The two commands over one connection. */
function commands() {
  const redis = new Redis(url)
  redis.defineCommand('give', { numberOfKeys: 1, lua: DELETE })
  return async (key, visit) => {
    if ((await redis.set(key, 'raw-token', 'PX', 30_000, 'NX')) !== 'OK') throw new Error('a raw SET failed')
    visit()
    if ((await redis.give(key, 'raw-token')) !== 1) throw new Error('a raw EVALSHA failed')
  }
}

/** First come, first served among tasks; whoever has the turn takes and gives. */
function queued(turn) {
  const mutex = new Mutex()
  return (key, visit) => mutex.runExclusive(() => turn(key, visit))
}

function baselines() {
  if (!url.startsWith('redis:')) return { a: own, b: own, d: own }
  const bare = commands()
  return { a: bare, b: queued(bare), d: bare }
}

/** Seconds for so many pairs, one after the other. */
async function alone(turn, pairs) {
  const began = performance.now()
  for (let i = 0; i < pairs; i++) await turn('bench-a', () => {})
  return (performance.now() - began) / 1e3
}

/** A slice of many tasks: what they have done, and whether two were ever inside. */
async function together(turn, tasks, apart) {
  const counts = new Array(tasks).fill(0)
  const longest = new Array(tasks).fill(0)
  let [owner, switched, inside, overlaps] = [-1, 0, 0, 0]
  const visit = (me, asked) => {
    longest[me] = Math.max(longest[me], performance.now() - asked)
    counts[me]++
    if (apart) return
    if (inside++ > 0) overlaps++
    if (owner !== me) {
      owner = me
      switched++
    }
    inside--
  }
  const began = performance.now()
  const work = async (me) => {
    const key = `bench-${apart ? me : 0}`
    while (performance.now() < began + SLICE) {
      const asked = performance.now()
      await turn(key, () => visit(me, asked))
    }
  }
  await Promise.all(counts.map((_, me) => work(me)))
  const took = (performance.now() - began) / 1e3
  const all = counts.reduce((sum, count) => sum + count)
  return {
    grants_per_s: all / took,
    switches_per_s: switched / took,
    switched,
    longest_ms: Math.max(...longest),
    least: Math.min(...counts),
    most: Math.max(...counts),
    overlaps,
  }
}

const raw = baselines()
for await (const line of createInterface({ input: process.stdin })) {
  const [what, number] = line.split(' ')
  const turn = what.endsWith('-raw') ? raw[what[0]] : ours
  const told = what[0] === 'a' ? alone(turn, Number(number)) : together(turn, Number(number), what[0] === 'd')
  console.log(JSON.stringify(await told))
}
process.exit()
