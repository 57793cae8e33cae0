/**
 * The Node worker of dlock-soak: tasks that take locks, use and misuse them, and write down what happens.
 *
 * `worker.mjs JOB` works until its input ends; tests/README.md has what JOB says and what is printed.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeSync } from 'node:fs'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import v8 from 'node:v8'
import vm from 'node:vm'

import * as dlock from 'dlock-rs'

v8.setFlagsFromString('--expose-gc')
const gc = vm.runInNewContext('gc')

const NEVER = 2n ** 64n - 1n
const MS = 1e6
const job = JSON.parse(process.argv[2])
let stopping = false
let ops = 0

/**
 * How far boot time, the library's clock, is ahead of the monotonic one, the only one that Node reads. They are the
 * same until the machine is suspended; after that, the difference is narrowed down by the ticks of /proc/uptime.
 */
function suspended() {
  if (process.platform !== 'linux') return 0n
  const tick = 10n * 1_000_000n
  let [least, most] = [-(2n ** 63n), 2n ** 63n]
  do {
    const before = process.hrtime.bigint()
    const uptime = BigInt(readFileSync('/proc/uptime', 'latin1').split(' ')[0].replace('.', '')) * tick
    const after = process.hrtime.bigint()
    if (uptime - after > least) least = uptime - after
    if (uptime + tick - before < most) most = uptime + tick - before
    if (least <= 0n && most >= 0n) return 0n
  } while (most - least > 100_000n)
  return (least + most) / 2n
}

const AHEAD = suspended()

/** Nanoseconds of the library's clock. */
const now = () => process.hrtime.bigint() + AHEAD

/** Milliseconds as nanoseconds, rounded down. */
const nanos = (millis) => BigInt(Math.floor(millis * MS))

/** Writes a line in one go; the time is now unless it says so. */
function write(line) {
  const fields = Object.entries({ t: now(), p: job.name, ...line }).filter(([, value]) => value != null)
  const texts = fields.map(([name, value]) => `"${name}":${typeof value === 'bigint' ? value : JSON.stringify(value)}`)
  const bytes = Buffer.from(`{${texts.join(',')}}\n`)
  // Only a blocking write is whole, and standard output blocks for as long as process.stdout isn't touched.
  if (writeSync(1, bytes) !== bytes.length) throw new Error('a line was torn')
}

/** A client of the protected resource. */
class Store {
  constructor(address) {
    const [host, port] = address.split(':')
    this.socket = connect({ host, port: Number(port), noDelay: true })
    this.lines = createInterface({ input: this.socket })
  }

  /** Sends a line, gives the answer. */
  async ask(line) {
    const answer = once(this.lines, 'line')
    this.socket.write(`${line}\n`)
    return (await answer)[0]
  }
}

/** Whether a failed call surely changed nothing, and the kind of its error. */
function failed(error) {
  if (error.name === 'AbortError') return { ph: 'fail', err: 'cancelled' }
  if (!(error instanceof dlock.DlockError)) throw error
  return { ph: error instanceof dlock.BackendError ? 'unknown' : 'fail', err: error.kind }
}

/** Until when it counts; not later than it does. Undefined: it doesn't, and since when can't be told. */
function validUntil(lease) {
  const t = now()
  const left = lease.validFor()
  if (left === 0) return undefined
  return left === Infinity ? NEVER : t + nanos(left)
}

/** One task. A turn's lease is in `held`, and nowhere else while it waits, so that it can be dropped. */
class Worker {
  static async start(number) {
    const worker = new Worker()
    worker.number = number
    worker.drawn = 0
    worker.client = await dlock.connect(job.url)
    worker.store = new Store(job.store)
    return worker
  }

  /** From 0 to below 1, the same for each run of a seed. */
  random() {
    const drawn = createHash('sha1').update(`${job.seed} ${this.number} ${++this.drawn}`)
    return drawn.digest().readUInt32LE() / 2 ** 32
  }

  pick() {
    return job.keys[Math.floor(this.random() * job.keys.length)]
  }

  /** Takes one lock after the other until it is told to stop. */
  async work() {
    while (!stopping) await (job.plain ? this.plainTurn() : this.turn())
    this.store.socket.destroy()
  }

  /** One lock, from its acquire to its end. */
  async turn() {
    const key = this.pick()
    const stale = this.random() < 0.01
    const ttl = stale ? job.stale_ms : job.ttl_ms
    const held = await this.acquire(key, { ttl, autoRenew: !stale && this.random() < 0.75 })
    if (held === null) return sleep(this.random() * 5)
    this.watch(held)
    const chance = this.random()
    if (stale) {
      await this.update(held, (ttl * 4) / 3)
      this.validate(held)
      await this.ask(held, 'renew')
    } else if (chance < 0.6) {
      await this.update(held, this.random() * 5)
    } else if (chance < 0.7) {
      this.validate(held)
    } else if (chance < 0.8) {
      await this.ask(held, 'renew')
      this.validate(held)
    } else if (chance < 0.88) {
      const longest = this.random() < 0.06 ? job.ttl_ms * 2 : 20
      await sleep(this.random() * longest)
      this.validate(held)
    }
    await (this.random() < 0.08 ? this.drop(held) : this.ask(held, 'release'))
    return sleep(this.random() * 3)
  }

  /** One lock, taken and given back. */
  async plainTurn() {
    const key = this.pick()
    const options = { ttl: job.ttl_ms, autoRenew: true, wait: job.patience_ms }
    const call = () => this.client.acquire(key, options)
    const held = await this.obtain('acquire', key, options, job.patience_ms, call)
    if (held === null) return undefined
    this.watch(held)
    await this.update(held, 0)
    await this.ask(held, 'release')
    return sleep(this.random())
  }

  /** Waits, tries, or gives up on the way. */
  async acquire(key, options) {
    const chance = this.random()
    const wait = this.random() * job.ttl_ms * 2
    if (chance < 0.15) {
      return this.obtain('try', key, options, job.patience_ms, () => this.client.tryAcquire(key, options))
    }
    if (chance >= 0.25) {
      return this.obtain('acquire', key, options, wait, () => this.client.acquire(key, { ...options, wait }))
    }
    const controller = new AbortController()
    const timer = setTimeout(() => controller.abort(), this.random() * 20)
    const { signal } = controller
    const held = await this.obtain('acquire', key, options, wait, () =>
      this.client.acquire(key, { ...options, wait, signal }),
    )
    clearTimeout(timer)
    return held
  }

  /** Makes such a call and writes what came of it; what is then held, or null. */
  async obtain(f, key, { autoRenew }, limit, call) {
    const op = this.begin(f, key, undefined, limit)
    let lease
    try {
      lease = await call()
    } catch (error) {
      this.end(op, f, key, undefined, failed(error))
      return null
    }
    const t = now()
    if (lease === null) {
      this.end(op, f, key, undefined, { t, ph: 'fail', err: 'busy' })
      return null
    }
    // One that was over before it could be looked at counts until now.
    const vu = validUntil(lease) ?? t
    this.end(op, f, key, undefined, { t, tok: lease.token, fence: lease.fence, vu, auto: autoRenew })
    return { lease, of: op, key, autoRenew }
  }

  /** Writes down when a loss is told. */
  watch({ lease, of, key }) {
    const told = () => write({ w: this.number, of, k: key, ph: 'lost', f: 'told' })
    if (lease.signal.aborted) told()
    else lease.signal.addEventListener('abort', told)
  }

  /** Writes that a call is about to be made; gives its number. */
  begin(f, key, of, limit) {
    const op = ++ops
    const t = now()
    write({ t, w: this.number, op, of, ph: 'inv', f, k: key, by: t + nanos(limit) })
    return op
  }

  /** Writes how a call ended. */
  end(op, f, key, of, more) {
    write({ w: this.number, op, of, ph: 'ok', f, k: key, ...more })
  }

  /** Asks whether it counts. */
  validate({ lease, of, key, autoRenew }) {
    const op = this.begin('validate', key, of, 0)
    try {
      lease.check()
    } catch (error) {
      return this.end(op, 'validate', key, of, failed(error))
    }
    // Nothing but a renewal moves the end that was stated before.
    return this.end(op, 'validate', key, of, { vu: autoRenew ? validUntil(lease) : undefined })
  }

  /** Renews or releases. */
  async ask({ lease, of, key }, f) {
    const op = this.begin(f, key, of, job.patience_ms)
    try {
      const ended = await lease[f]()
      const more = f === 'renew' ? { vu: validUntil(lease) } : ended.lost ? { ph: 'fail', err: 'lost' } : {}
      this.end(op, f, key, of, more)
    } catch (error) {
      this.end(op, f, key, of, failed(error))
    }
  }

  /** Forgets the lease, and has it collected. */
  async drop(held) {
    const { of, key } = held
    const op = this.begin('drop', key, of, 0)
    const dropped = new WeakRef(held.lease)
    held.lease = null
    for (let tries = 0; dropped.deref() !== undefined; tries++) {
      if (tries === 10) throw new Error('a dropped lease is never collected')
      await turn()
      gc()
    }
    // What is collected is released at the end of a turn.
    await turn()
    this.end(op, 'drop', key, of)
  }

  /** What the lock is for. */
  async update({ lease, key }, think) {
    if (lease.fence === null) return
    const { fence } = lease
    const lengths = await this.store.ask(`read ${key} ${fence}`)
    if (think > 0) await sleep(think)
    await this.store.ask(`write ${key} ${fence} ${lengths}`)
  }
}

// A dropped lease is said by a warning each.
process.removeAllListeners('warning')
process.on('warning', (warning) => {
  if (warning.code !== 'DLOCK_UNRELEASED') console.error(warning)
})
process.stdin.resume().on('end', () => (stopping = true))
const workers = await Promise.all(Array.from({ length: job.threads }, (_, at) => Worker.start(at + 1)))
await Promise.all(workers.map((worker) => worker.work()))
