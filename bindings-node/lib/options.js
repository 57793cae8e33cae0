/** Arguments and options: of the right type, and known by name. What their values may be, the addon says. */
'use strict'

const { native, options } = require('./native.js')

function wrongType(name, expected, value) {
  const { inspect } = require('node:util')
  const shown = inspect(value, { depth: -1 }).slice(0, 80)
  const error = new TypeError(`The "${name}" argument must be ${expected}. Received ${typeof value} ${shown}`)
  error.code = 'ERR_INVALID_ARG_TYPE'
  return error
}

const typed = (type, expected) => (name, value) => {
  if (typeof value !== type) throw wrongType(name, expected, value)
  return value
}
const text = typed('string', 'of type string')
/** Text that has a form in UTF-8. */
function string(name, value) {
  if (text(name, value).isWellFormed()) return value
  throw native.noUnicode(name, JSON.stringify(value).slice(0, 140))
}
const number = typed('number', 'a number')
const boolean = typed('boolean', 'of type boolean')

const isObject = (value) => typeof value === 'object' && value !== null

function retry(name, value) {
  const [tries, delay] = Array.isArray(value) ? value : isObject(value) ? [value.tries, value.delay] : []
  if (typeof tries !== 'number' || typeof delay !== 'number' || value.length > 2) {
    throw wrongType(name, '[tries, delay] or {tries, delay}: a number and milliseconds', value)
  }
  return [tries, delay]
}

function signal(name, value) {
  if (!isObject(value) || !('aborted' in value) || typeof value.addEventListener !== 'function') {
    throw wrongType(name, 'an AbortSignal', value)
  }
  return value
}

function mode(name, value) {
  if (value === 'exclusive' || value === 'shared') return value
  const error = new TypeError(`The "${name}" option must be 'exclusive' or 'shared'. Received ${String(value)}`)
  error.code = 'ERR_INVALID_ARG_VALUE'
  throw error
}

/** What checks the type of a value, by its kind in the addon's table of options. */
const KINDS = { time: number, flag: boolean, text: string, count: number, retry }
/** The options of an acquire: those of every language, and those that only JavaScript has; and of a request beside. */
const ACQUIRE = { ...Object.fromEntries(options.map(([name, kind]) => [name, KINDS[kind]])), signal, ref: boolean }
const REQUEST = { ...ACQUIRE, mode, ifAvailable: boolean, steal: boolean }

/** The error of an option that doesn't exist: with the one that was probably meant, and all that there are. */
const noOption = (name, known) => native.noOption(name.toWellFormed(), known)

/** Checks options by a table of what is known; those that are undefined count as not given. */
function read(options, known) {
  if (!isObject(options) || Array.isArray(options)) throw wrongType('options', 'of type object', options)
  const given = {}
  for (const name in options) {
    if (!Object.hasOwn(known, name)) throw noOption(name, Object.keys(known))
    const value = options[name]
    if (value !== undefined) given[name] = known[name](name, value)
  }
  return given
}

/** The options of a connection as the addon wants them: each with its name as in a URL. */
function connection(options) {
  if (!isObject(options) || Array.isArray(options)) throw wrongType('options', 'of type object', options)
  const given = []
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue
    const texts = Array.isArray(value) && value.every((item) => typeof item === 'string')
    if (!texts && !['string', 'number', 'boolean'].includes(typeof value)) {
      throw wrongType(name, 'a string, number, boolean or array of strings', value)
    }
    given.push({ name: name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value })
  }
  return given
}

module.exports = { ACQUIRE, REQUEST, connection, isObject, noOption, number, read, string, wrongType }
