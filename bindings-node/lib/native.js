/** The addon, found and made ready, and the errors it makes. */
'use strict'

const fs = require('node:fs')
const path = require('node:path')
const vm = require('node:vm')
const { isMainThread } = require('node:worker_threads')

/** Node's own realm. In another one, a `vm` context, there may be nothing but the language. */
const outer = vm.runInThisContext('globalThis')
const { process } = outer
const realm = {
  get AbortController() {
    return globalThis.AbortController ?? outer.AbortController
  },
  get DOMException() {
    return globalThis.DOMException ?? outer.DOMException
  },
  asyncDispose: Symbol.asyncDispose ?? outer.Symbol.asyncDispose,
  process,
}

/** Where an addon may be: built here, or brought by the package for this platform (whose libc shows when it's loaded). */
function places() {
  const here = path.join(__dirname, '..')
  const prebuilt = path.join(here, 'prebuilt')
  const fitting = `${process.platform}-${process.arch}`
  const brought = fs.existsSync(prebuilt) ? fs.readdirSync(prebuilt).filter((name) => name.startsWith(fitting)) : []
  return [path.join(here, 'dlock.node'), ...brought.map((name) => path.join(prebuilt, name, 'dlock.node'))]
}

function load() {
  const failures = []
  for (const place of places()) {
    try {
      return require(place)
    } catch (error) {
      if (fs.existsSync(place)) failures.push(error.message)
    }
  }
  throw new Error(
    `dlock-rs has no addon that works on ${process.platform}-${process.arch}: run its install script ` +
      `(npm rebuild dlock-rs), which builds one. ${failures.join('; ')}`,
  )
}

class DlockError extends Error {
  constructor(message, kind = '', code = 'ERR_DLOCK', temporary = false, key = null, backend = null) {
    super(message)
    this.code = code
    this.kind = kind
    this.temporary = temporary
    this.key = key
    this.backend = backend
  }
}

/** The class and the code of each kind, by the addon's table. */
const classes = new Map()

/** Makes an error; the addon calls it, too. */
function failure(kind, message, temporary = false, key = null, backend = null) {
  const [Class, code] = classes.get(kind) ?? [DlockError]
  return new Class(message, kind, code, temporary, key, backend)
}

/** What the addon calls: to make an error, and when a lease that is watched is lost, which lib/lease.js is told. */
const hooks = { failure, lost: undefined }

const addon = load()
const half = addon.join(hooks)
/**
 * The addon's functions, each with what tells it whose call it is: the addon may serve other copies of this module. It
 * doesn't keep what it calls, so they do.
 */
const native = {}
for (const [name, call] of Object.entries(addon)) native[name] = call.bind(hooks, half)
const { kinds, options, version } = addon.known()

const errors = { DlockError }
for (const [kind, name, code] of kinds) {
  const Class = { [name]: class extends DlockError {} }[name]
  classes.set(kind, [Class, code])
  errors[name] = Class
}
for (const Class of Object.values(errors)) {
  Object.defineProperty(Class.prototype, 'name', { value: Class.name, configurable: true, writable: true })
}

// A worker's end is the addon's to notice. At the process's end it releases what is held, a second at the most. Said once,
// whatever number of copies there is; and by the addon's own function, which keeps none of them.
if (isMainThread && !process.listeners('exit').includes(addon.shutdown)) process.on('exit', addon.shutdown)

/** Waits for a call; its error then tells where that was. */
async function settled(promise) {
  try {
    return await promise
  } catch (error) {
    if (error instanceof DlockError) Error.captureStackTrace(error)
    throw error
  }
}

module.exports = { native, errors, failure, hooks, options, realm, settled, version }
