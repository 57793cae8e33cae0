/**
 * The Node interpreter of the behaviour cases: reads steps, does them through the public API, prints their outcomes.
 * tests/README.md has the language.
 */
import { createInterface } from 'node:readline'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import v8 from 'node:v8'
import vm from 'node:vm'

import * as dlock from 'dlock-rs'

v8.setFlagsFromString('--expose-gc')
const gc = vm.runInNewContext('gc')

const KINDS = {
  timeout: dlock.LockTimeoutError,
  lost: dlock.LockLostError,
  'not-held': dlock.NotHeldError,
  backend: dlock.BackendError,
  invalid: dlock.InvalidArgumentError,
  unsupported: dlock.UnsupportedError,
  internal: dlock.InternalError,
  deadlock: dlock.DeadlockError,
}

/** `300ms`, `-1s`, `nan`, as milliseconds. */
function millis(text) {
  const number = (digits) => Number(digits.replace('inf', 'Infinity'))
  return text.endsWith('ms') ? number(text.slice(0, -2)) : number(text.replace(/s$/, '')) * 1000
}

/** Bytes as text; one that isn't UTF-8 becomes a lone surrogate. */
function decode(bytes) {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  let text = ''
  for (let at = 0; at < bytes.length; ) {
    const lengths = [1, 2, 3, 4].filter((length) => at + length <= bytes.length)
    const length = lengths.find((length) => {
      try {
        text += decoder.decode(bytes.subarray(at, at + length))
        return true
      } catch {
        return false
      }
    })
    if (length === undefined) text += String.fromCharCode(0xdc00 + bytes[at])
    at += length ?? 1
  }
  return text
}

/** `''` is nothing, `\xHH` a byte. */
function unescape(word) {
  if (word === "''") return ''
  if (!word.includes('\\x')) return word
  const [first, ...rest] = word.split('\\x')
  const parts = rest.flatMap((part) => [Buffer.from(part.slice(0, 2), 'hex'), Buffer.from(part.slice(2))])
  return decode(Buffer.concat([Buffer.from(first), ...parts]))
}

/** An answer: `-` for what isn't known, `yes` and `no`, or as it is. */
const shown = (value) => (value === null ? '-' : typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value))

/** The options of a step. */
function optionsOf(words) {
  const read = { ttl: millis, wait: millis, max_hold: millis, handoff: Number }
  read.auto_renew = read.fair = (value) => value === 'true'
  read.retry = (value) => {
    const [tries, delay] = value.split(',')
    return [Number(tries), millis(delay)]
  }
  const pairs = words.map((word) => {
    const [, name, value] = word.match(/^(\w+)=(.*)$/s)
    return [name.replace(/_[a-z]/g, (letter) => letter[1].toUpperCase()), (read[name] ?? String)(value)]
  })
  return Object.fromEntries(pairs)
}

/** What stands for the client of a service: the module's functions with that option. */
async function serviceOf(service) {
  await dlock.query({ service })
  return {
    acquire: (name, options) => dlock.acquire(name, { ...options, service }),
    tryAcquire: (name, options) => dlock.tryAcquire(name, { ...options, service }),
    request: (name, options, callback) => dlock.request(name, { ...options, service }, callback),
    contenders: (name) => dlock.contenders(name, { service }),
    breakLock: (name) => dlock.breakLock(name, { service }),
  }
}

/** Waits until it is so, for so long at most; gives whether it is. */
async function until(limit, isSo) {
  const end = performance.now() + limit
  while (!isSo() && performance.now() < end) await sleep(2)
  return isSo()
}

/** Has what nobody can reach collected, and its finalizers run. */
async function collect() {
  for (let i = 0; i < 3; i++) {
    await turn()
    gc()
  }
  await turn()
}

let url = ''
const clients = new Map()
/** Leases with the calls of their callbacks. */
const leases = new Map()
/** Acquires under way, with what aborts them. */
const calls = new Map()

async function outcome(line) {
  const [step, name] = line.trim().split(' -> ')
  const [first, ...words] = step.split(' ').map(unescape)
  try {
    if (first === 'case') return await startCase(...words)
    if (first[0] === '$') return await leaseStep(first, ...words)
    if (first[0] === '%') return await acquireStep(first, name, ...words)
    return await clientStep(first, name, ...words)
  } catch (error) {
    if (error?.name === 'AbortError') return 'cancelled'
    const kind = error instanceof dlock.DlockError && error.constructor === KINDS[error.kind] ? error.kind : undefined
    return kind ?? `${error?.stack ?? error}`.replaceAll('\n', ' ')
  }
}

async function startCase(address) {
  url = address
  calls.clear()
  leases.clear()
  for (const client of clients.values()) await client.close?.()
  clients.clear()
  await collect()
  return 'ok'
}

function got(lease, name) {
  if (name === undefined) return 'lease'
  leases.set(name, { lease, called: [] })
  return name
}

const makers = {
  connect: (address) => dlock.connect(address),
  default: () => dlock.connect(),
  service: serviceOf,
  config: (config) => dlock.connect({ config }),
}

async function clientStep(who, name, verb, ...words) {
  if (Object.hasOwn(makers, verb)) {
    clients.set(who, await makers[verb](...words))
    return 'ok'
  }
  if (!clients.has(who)) clients.set(who, await dlock.connect(url))
  const client = clients.get(who)
  const [key, ...options] = words
  switch (verb) {
    case 'acquire':
      return got(await client.acquire(key, optionsOf(options)), name)
    case 'try': {
      const lease = await client.tryAcquire(key, optionsOf(options))
      return lease === null ? 'busy' : got(lease, name)
    }
    case 'begin': {
      const controller = new AbortController()
      const call = { controller, ended: false }
      call.promise = client.acquire(key, { ...optionsOf(options), signal: controller.signal })
      const ended = () => (call.ended = true)
      call.promise.then(ended, ended)
      calls.set(name, call)
      return name
    }
    case 'with':
      await client.request(key, optionsOf(options.slice(1)), () => sleep(millis(options[0])))
      return 'released'
    case 'rush': {
      const tried = await Promise.all(Array.from({ length: Number(options[0]) }, () => client.tryAcquire(key)))
      const leases = tried.filter((lease) => lease !== null)
      for (const lease of leases) await lease.release()
      return String(leases.length)
    }
    case 'crowd': {
      let inside = 0
      const one = async () => {
        const now = ++inside
        await sleep(1)
        inside--
        return now
      }
      const all = Array.from({ length: Number(options[0]) }, () => client.request(key, one))
      return String(Math.max(...(await Promise.all(all))))
    }
    case 'contenders': {
      const everybody = await client.contenders(key)
      const [field] = options
      if (field === undefined) return String(everybody.length)
      const of = (one) => (field === 'aged' ? one.age && one.age < 5000 : one[field])
      return everybody.map((one) => shown(of(one))).join(' ')
    }
    case 'break':
      return shown(await client.breakLock(key))
    case 'ping':
    case 'close':
      await client[verb]()
      return 'ok'
    case 'backend':
      return client.backend
    case 'register':
      dlock.register(key, client)
      return 'ok'
    case 'capability':
      return shown(client.capabilities[key])
  }
  return `no step of a client: ${verb} ${words}`
}

async function leaseStep(name, verb, ...words) {
  if (!leases.has(name)) return `there is no ${name}`
  if (verb === 'drop') {
    leases.delete(name)
    await collect()
    return 'ok'
  }
  const { lease, called } = leases.get(name)
  switch (verb) {
    case 'release':
      return (await lease.release()).lost ? 'lost' : 'released'
    case 'renew':
      await lease.renew(...words.map(millis))
      return 'ok'
    case 'held':
      return shown(lease.validFor() > 0 && !lease.signal.aborted)
    case 'valid': {
      const left = lease.validFor()
      return left === 0 ? 'no' : left === Infinity ? 'forever' : shown(left <= lease.ttl)
    }
    case 'lost-within':
      return shown(await until(millis(words[0]), () => lease.signal.aborted))
    case 'check':
      lease.check()
      return 'ok'
    case 'callback':
      if (lease.signal.aborted) called.push(lease)
      else lease.signal.addEventListener('abort', () => called.push(lease))
      return 'ok'
    case 'called':
      await until(millis(words[0]), () => called.length > 0)
      return String(called.length)
    case 'fence':
      return String(lease.fence ?? 'none')
    case 'ttl':
      return `${Math.round(lease.ttl)}ms`
    case 'token':
      return lease.token
    case 'key':
      return lease.name
  }
  return `no step of a lease: ${verb} ${words}`
}

async function acquireStep(id, name, verb) {
  if (!calls.has(id)) return `there is no ${id}`
  const call = calls.get(id)
  switch (verb) {
    case 'cancel':
      call.controller.abort()
      return 'ok'
    case 'done':
      return shown(await until(100, () => call.ended))
    case 'join':
      return got(await call.promise, name)
  }
  return `no step of an acquire: ${verb}`
}

console.log('able cancel signed float bytes zero nul')
for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() === '' || line.trim() === 'exit') break
  console.log(await outcome(line))
}
// An acquire under way would keep the process alive.
process.exit()
