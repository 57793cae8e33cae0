/** The addon, found and made ready, and the errors it makes. */
'use strict'

const fs = require('node:fs')
const path = require('node:path')
const { isMainThread } = require('node:worker_threads')

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
  constructor(message, kind = '', code = 'ERR_DLOCK', temporary = false, key = null, service = null) {
    super(message)
    this.code = code
    this.kind = kind
    this.temporary = temporary
    this.key = key
    this.service = service
  }
}

/** The class and the code of each kind, by the addon's table. */
const classes = new Map()

/** Makes an error; the addon calls it, too. */
function failure(kind, message, temporary = false, key = null, service = null) {
  const [Class, code] = classes.get(kind) ?? [DlockError]
  return new Class(message, kind, code, temporary, key, service)
}

/** Told by the addon when a lease that is watched is lost; lib/lease.js sets it. */
const hooks = { lost: undefined }

const native = load()
const { kinds, version } = native.join(failure, (lease, watch) => hooks.lost(lease, watch))

const errors = { DlockError }
for (const [kind, name, code] of kinds) {
  const Class = { [name]: class extends DlockError {} }[name]
  classes.set(kind, [Class, code])
  errors[name] = Class
}
for (const Class of Object.values(errors)) {
  Object.defineProperty(Class.prototype, 'name', { value: Class.name, configurable: true, writable: true })
}

// A worker's end is the addon's to notice. At the process's end it releases what is held, a second at the most.
if (isMainThread) process.on('exit', () => native.shutdown())

/** Waits for a call; its error then tells where that was. */
async function settled(promise) {
  try {
    return await promise
  } catch (error) {
    if (error instanceof DlockError) Error.captureStackTrace(error)
    throw error
  }
}

module.exports = { native, errors, failure, hooks, settled, version }
