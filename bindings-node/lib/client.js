/** Clients: objects over the addon's numbers. */
'use strict'

const { native, failure, realm, settled } = require('./native.js')
const { ACQUIRE, REQUEST, isObject, read, string, wrongType } = require('./options.js')
const { OURS, leave, make, scoped } = require('./lease.js')

const registry = new FinalizationRegistry((handle) => native.forget(handle))
const NONE = {}

/** Whether a call of the addon is not yet settled. */
const isPending = (value) => typeof value === 'object' && value !== null

/** What aborts the calls under way, by signal. One listener each: Node warns of a leak when a signal has more than ten. */
const abortable = new WeakMap()

function listen(signal, abort) {
  let aborts = abortable.get(signal)
  if (aborts === undefined) {
    aborts = new Set()
    aborts.listener = () => {
      abortable.delete(signal)
      for (const abort of aborts) abort()
    }
    abortable.set(signal, aborts)
    signal.addEventListener('abort', aborts.listener, { once: true })
  }
  aborts.add(abort)
  return () => {
    aborts.delete(abort)
    if (aborts.size !== 0 || abortable.get(signal) !== aborts) return
    abortable.delete(signal)
    signal.removeEventListener('abort', aborts.listener)
  }
}

/** Waits for an acquire, unless the signal comes first: then the call is withdrawn, and what it obtained given back. */
function unlessAborted(promise, signal) {
  const call = native.lastCall()
  return new Promise((resolve, reject) => {
    let aborted = false
    const over = listen(signal, () => {
      aborted = true
      native.cancel(call)
      reject(signal.reason)
    })
    promise.then(
      (handle) => {
        over()
        if (aborted && handle !== null) native.abandon(handle)
        resolve(handle)
      },
      (error) => {
        over()
        reject(error)
      },
    )
  })
}

/** An acquire or try: the lease's number, null when busy, or a promise of it. */
function obtain(call, client, name, options) {
  let handle
  if (options === NONE) {
    handle = call(client, name)
  } else {
    const { signal } = options
    if (signal?.aborted) throw signal.reason
    handle = call(client, name, options)
    if (signal !== undefined && isPending(handle)) handle = unlessAborted(handle, signal)
  }
  return isPending(handle) ? settled(handle) : handle
}

/** Web Locks' rules of what goes with what. */
function combined(name, { ifAvailable, steal, signal, mode }) {
  let why
  if (name.startsWith('-')) why = "a lock's name can't begin with '-'"
  else if (steal && ifAvailable) why = "'steal' and 'ifAvailable' can't be used together"
  else if (steal && mode === 'shared') why = "'steal' needs mode 'exclusive'"
  else if (signal !== undefined && (steal || ifAvailable)) why = "'signal' can't be used with 'steal' or 'ifAvailable'"
  if (why !== undefined) throw new realm.DOMException(why, 'NotSupportedError')
  if (signal?.aborted) throw signal.reason
}

/** A client's number, for this package only. Undefined: not a client of this copy. */
let numberOf

class Client {
  /** Its number, kept by its leases too. */
  #core

  constructor(key, number) {
    if (key !== OURS) throw new TypeError('Illegal constructor')
    this.#core = { number }
    registry.register(this.#core, number)
  }

  get backend() {
    return native.backend(this.#core.number)
  }

  get capabilities() {
    return { ...native.capabilities(this.#core.number) }
  }

  async acquire(name, options) {
    string('name', name)
    const given = options === undefined ? NONE : read(options, ACQUIRE)
    let handle = obtain(native.acquire, this.#core.number, name, given)
    if (isPending(handle)) handle = await handle
    return make(handle, name, this.#core, given.ref)
  }

  async tryAcquire(name, options) {
    string('name', name)
    const given = options === undefined ? NONE : read(options, ACQUIRE)
    let handle = obtain(native.tryAcquire, this.#core.number, name, given)
    if (isPending(handle)) handle = await handle
    return handle === null ? null : make(handle, name, this.#core, given.ref)
  }

  async request(name, options, callback) {
    if (callback === undefined && typeof options === 'function') [options, callback] = [undefined, options]
    string('name', name)
    if (typeof callback !== 'function') throw wrongType('callback', 'of type function', callback)
    const given = options === undefined ? NONE : read(options, REQUEST)
    combined(name, given)
    if (given.mode === 'shared') {
      const why = `${this.backend} can't do mode 'shared': this package has exclusive locks only; leave mode out`
      throw failure('unsupported', why, false, name, this.backend)
    }
    if (given.steal) await this.breakLock(name)
    const call = given.ifAvailable ? native.tryAcquire : native.acquire
    let handle = obtain(call, this.#core.number, name, given)
    if (isPending(handle)) handle = await handle
    if (handle === null) return callback(null)
    const lease = scoped(handle, name, this.#core, given.ref)
    let value
    try {
      value = await callback(lease)
    } catch (error) {
      await leave(lease)?.catch(() => {})
      throw error
    }
    const left = leave(lease)
    if (left !== undefined) await left
    return value
  }

  async query() {
    const { clientId, all } = native.query(this.#core.number)
    const of = (wanted) =>
      Array.from(all).filter(({ held }) => held === wanted).map(({ name }) => ({ name, mode: 'exclusive', clientId }))
    return { held: of(true), pending: of(false) }
  }

  async contenders(name) {
    const all = await settled(native.contenders(this.#core.number, string('name', name)))
    // Of the caller's realm.
    return Array.from(all, (one) => ({ ...one }))
  }

  async breakLock(name) {
    return settled(native.breakLock(this.#core.number, string('name', name)))
  }

  async ping() {
    await settled(native.ping(this.#core.number))
  }

  async close() {
    await settled(native.close(this.#core.number))
  }

  [realm.asyncDispose]() {
    return this.close()
  }

  static {
    numberOf = (client) => (isObject(client) && #core in client ? client.#core.number : undefined)
  }

  [Symbol.for('nodejs.util.inspect.custom')]() {
    return `Client { ${native.url(this.#core.number)} }`
  }
}

module.exports = { Client, numberOf }
