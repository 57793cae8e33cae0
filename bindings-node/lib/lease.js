/** Leases: objects over the addon's numbers. */
'use strict'

const { setImmediate } = require('node:timers')
const { native, hooks, realm, settled } = require('./native.js')
const { number } = require('./options.js')

/** Known to this package only: nobody else makes leases. */
const OURS = Symbol('dlock')

/** Collected while held: released, and said. */
const registry = new FinalizationRegistry((handle) => {
  unwatch(handle)
  const name = native.abandon(handle)
  if (name === null) return
  const detail = 'It was collected while held. Release each lease, or use request() or await using.'
  realm.process.emitWarning(`unreleased dlock lease of ${JSON.stringify(name)}`, { code: 'DLOCK_UNRELEASED', detail })
})

// A registration costs more than a lock. So only leases that outlive the loop's turn are registered; until then they
// are kept here, each knowing its place.
const young = []
let growing = false
const REGISTERED = -1
const UNREGISTERED = -2

function enrol() {
  growing = false
  for (const lease of young) register(lease)
  young.length = 0
}

/** Leases whose loss is to be told: who listens, and whether the lease keeps the loop alive. */
const watched = new Map()

function watch(handle) {
  let entry = watched.get(handle)
  if (entry === undefined) {
    entry = { controller: null, ref: false }
    watched.set(handle, entry)
    native.watch(handle)
  }
  return entry
}

function unwatch(handle) {
  const entry = watched.get(handle)
  if (entry === undefined) return undefined
  watched.delete(handle)
  if (entry.ref) native.letGo()
  return entry
}

hooks.lost = (handle) => unwatch(handle)?.controller?.abort(native.loss(handle))

/** Makes a lease that is held for as long as its object is used. */
let make
/** Makes a lease that is held until its callback has ended, whatever becomes of its object. */
let scoped
/** The end of a lease's block: gives it back, and rejects if it was lost. Undefined: done. */
let leave
let register

class Lease {
  #handle
  #name
  /** Its client, which the addon is to keep. */
  #core
  #place = UNREGISTERED
  /** The release under way. */
  #ending = null
  /** What is left to be told when the addon has forgotten it. */
  #over = null
  #signal = null

  constructor(key, handle, name, core) {
    if (key !== OURS) throw new TypeError('Illegal constructor')
    this.#handle = handle
    this.#name = name
    this.#core = core
  }

  static {
    make = (handle, name, core, ref) => {
      const lease = new Lease(OURS, handle, name, core)
      lease.#place = young.push(lease) - 1
      if (!growing) {
        growing = true
        setImmediate(enrol).unref()
      }
      if (ref) lease.#hold()
      return lease
    }
    scoped = (handle, name, core, ref) => {
      const lease = new Lease(OURS, handle, name, core)
      if (ref) lease.#hold()
      return lease
    }
    leave = (lease) => {
      let lost
      try {
        lost = lease.#give()
      } catch (error) {
        lost = Promise.reject(error)
      }
      return lost === false ? undefined : lease.#judge(lost)
    }
    register = (lease) => {
      lease.#place = REGISTERED
      registry.register(lease, lease.#handle, lease)
    }
  }

  #hold() {
    watch(this.#handle).ref = true
    native.hold()
  }

  get name() {
    return this.#name
  }

  get mode() {
    return 'exclusive'
  }

  get fence() {
    return this.#over === null ? native.fence(this.#handle) : this.#over.fence
  }

  get token() {
    return this.#over === null ? native.token(this.#handle) : this.#over.token
  }

  get ttl() {
    return this.#over === null ? native.ttl(this.#handle) : this.#over.ttl
  }

  validFor() {
    return this.#over === null ? native.validFor(this.#handle) : 0
  }

  check() {
    if (this.#over !== null) throw this.#gone()
    native.check(this.#handle)
  }

  get signal() {
    if (this.#signal === null) {
      const controller = new realm.AbortController()
      this.#signal = controller.signal
      if (this.#over === null) watch(this.#handle).controller = controller
      else if (this.#over.loss !== null) controller.abort(this.#over.loss)
    }
    return this.#signal
  }

  async renew(ttl) {
    if (ttl !== undefined) number('ttl', ttl)
    if (this.#over !== null) throw this.#gone()
    const renewed = native.renew(this.#handle, ttl)
    if (renewed !== undefined) await settled(renewed)
  }

  async release() {
    const lost = this.#give()
    return { lost: typeof lost === 'boolean' ? lost : await lost }
  }

  async [realm.asyncDispose]() {
    const left = leave(this)
    if (left !== undefined) await left
  }

  /** Gives it back: whether it had been lost, or a promise of that. */
  #give() {
    if (this.#over !== null) return this.#over.loss !== null
    if (this.#ending !== null) return this.#ending
    const answer = native.release(this.#handle)
    // By its shape: it may be of another realm.
    if (typeof answer.then === 'function') return (this.#ending = this.#given(answer))
    this.#end(answer)
    return answer.loss !== null
  }

  async #given(answer) {
    try {
      const over = await settled(answer)
      this.#end(over)
      return over.loss !== null
    } finally {
      this.#ending = null
    }
  }

  async #judge(giving) {
    try {
      await giving
    } catch (error) {
      // Not confirmed in time: the lock ends by its ttl, and the addon goes on trying.
      if (error.kind !== 'backend') throw error
      if (this.#over === null) this.#end(native.free(this.#handle))
    }
    if (this.#over.loss !== null) throw this.#gone()
  }

  /** The addon has forgotten it, and left what may still be asked. */
  #end(over) {
    if (watched.size !== 0) unwatch(this.#handle)
    this.#over = over
    if (this.#place >= 0) {
      const last = young.pop()
      if (last !== this) {
        young[this.#place] = last
        last.#place = this.#place
      }
    } else if (this.#place === REGISTERED) {
      registry.unregister(this)
    }
    this.#place = UNREGISTERED
  }

  #gone() {
    if (this.#over.loss === null) return native.released(this.#core.number, this.#name)
    Error.captureStackTrace(this.#over.loss)
    return this.#over.loss
  }
}

module.exports = { Lease, OURS, leave, make, scoped }
