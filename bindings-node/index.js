/** dlock-rs: clients, and functions that use the default one or a service's. index.d.ts says what each does. */
'use strict'

const { native, errors, failure, version } = require('./lib/native.js')
const { connection, isObject, noOption, string, wrongType } = require('./lib/options.js')
const { Lease, OURS } = require('./lib/lease.js')
const { Client, numberOf } = require('./lib/client.js')

const open = (handle) => new Client(OURS, handle)

/** A variable that isn't set, given as an argument, is never the default. */
function set(name, value) {
  if (value !== undefined && value !== null) return value
  const remedy = 'Give a value, or leave it out: connect() is the default client'
  throw failure('invalid', `${name} is ${value}; perhaps a variable isn't set. ${remedy}`)
}

async function connect(...given) {
  if (given.length === 0) return open(native.connectDefault())
  const [where, options] = given
  set('url', where)
  if (options !== undefined && (typeof where !== 'string' || where.includes('://'))) {
    throw failure('invalid', "connect() takes options after a backend's name: connect('file', {dir: …}), a URL's in the URL")
  }
  if (isObject(where)) {
    const unknown = Object.keys(where).find((name) => name !== 'config')
    if (unknown !== undefined) throw noOption(unknown, ['config'])
    return open(native.connectFile(string('config', set('config', where.config))))
  }
  if (typeof where !== 'string') throw wrongType('url', 'a URL, the name of a backend, or {config}', where)
  if (where.includes('://')) return open(native.connectUrl(where))
  return open(native.connectTo(where, connection(options ?? {})))
}

/** Clients of services, by name; the default one under undefined. */
const services = new Map()
let registered = 0

function clientOf(service) {
  if (service !== undefined) {
    string('service', service)
    // Whoever registers, in whatever thread, may have given the name to another client.
    const count = native.registered()
    if (count !== registered) {
      const standard = services.get(undefined)
      services.clear()
      if (standard !== undefined) services.set(undefined, standard)
      registered = count
    }
  }
  let client = services.get(service)
  if (client === undefined || native.closed(numberOf(client))) {
    client = open(native.service(service))
    services.set(service, client)
  }
  return client
}

/** Calls a client's method with the options but for `service`, which says whose. Rejects, never throws. */
function on(options, call) {
  try {
    if (!isObject(options)) return call(clientOf(undefined), options)
    const { service, ...others } = options
    return call(clientOf(service), others)
  } catch (error) {
    return Promise.reject(error)
  }
}

/** For functions whose only option is `service`. */
const only = (call) => (client, options) => {
  const unknown = isObject(options) ? Object.keys(options)[0] : undefined
  if (options !== undefined && !isObject(options)) throw wrongType('options', 'of type object', options)
  if (unknown !== undefined) throw noOption(unknown, ['service'])
  return call(client)
}

function acquire(name, options) {
  return on(options, (client, options) => client.acquire(name, options))
}

function tryAcquire(name, options) {
  return on(options, (client, options) => client.tryAcquire(name, options))
}

function request(name, options, callback) {
  if (callback === undefined && typeof options === 'function') [options, callback] = [undefined, options]
  return on(options, (client, options) => client.request(name, options, callback))
}

function query(options) {
  return on(options, only((client) => client.query()))
}

function contenders(name, options) {
  return on(options, only((client) => client.contenders(name)))
}

function breakLock(name, options) {
  return on(options, only((client) => client.breakLock(name)))
}

function register(service, client) {
  const number = numberOf(client)
  if (number === undefined) throw wrongType('client', 'a Client that this copy of dlock-rs made', client)
  native.register(string('service', service), number)
}

module.exports = {
  connect,
  acquire,
  tryAcquire,
  request,
  query,
  contenders,
  breakLock,
  register,
  Client,
  Lease,
  ...errors,
  version,
}
