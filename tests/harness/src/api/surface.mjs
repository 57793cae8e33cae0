/**
 * Prints the public names of the Node package, one a line: what it exports, the members of its classes and of the objects it
 * gives, options. What index.d.ts declares has to be the same.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

import * as dlock from 'dlock-rs'

const require = createRequire(import.meta.url)
const declarations = readFileSync(require.resolve('dlock-rs').replace(/\.js$/, '.d.ts'), 'utf8')

const INSPECT = Symbol.for('nodejs.util.inspect.custom')
/** `asyncDispose` for its symbol. */
const shown = (key) => (typeof key === 'symbol' ? key.description.replace(/^.*\./, '') : key)
const members = (prefix, keys) => [...keys].filter((key) => key !== INSPECT).map((key) => `${prefix}.${shown(key)}`)

/** The options a call takes, from what is said of one that doesn't exist. */
async function options(call) {
  const error = await call({ 'no-such-option': 1 }).then(() => undefined, (error) => error)
  return error.message.split('there are: ')[1].split(', ')
}

/** What there is when the package runs. */
async function real() {
  const exported = Object.keys(dlock).filter((name) => name !== 'default')
  const client = await dlock.connect('memory://')
  const lease = await client.acquire('k')
  const names = [...exported]
  for (const [name, object] of [['Client', client], ['Lease', lease]]) {
    const keys = [...Reflect.ownKeys(dlock[name].prototype), ...Reflect.ownKeys(object)]
    names.push(...members(name, keys.filter((key) => key !== 'constructor')))
    const own = Reflect.ownKeys(dlock[name]).filter((key) => !['length', 'name', 'prototype'].includes(key))
    names.push(...members(name, own))
  }
  const error = await client.acquire('').catch((error) => error)
  names.push(...members('DlockError', Object.keys(Object.getOwnPropertyDescriptors(error)).filter((key) => !(key in Error('x')) && key !== 'stack')))
  names.push(...members('Contender', Reflect.ownKeys((await client.contenders('k'))[0])))
  names.push(...members('Capabilities', Reflect.ownKeys(client.capabilities)))
  const snapshot = await client.query()
  names.push(...members('Snapshot', Reflect.ownKeys(snapshot)), ...members('LockInfo', Reflect.ownKeys(snapshot.held[0])))
  const acquire = await options((given) => client.acquire('k', given))
  const request = await options((given) => client.request('k', given, () => {}))
  names.push(...acquire.map((option) => `acquire(${option})`))
  names.push(...request.filter((option) => !acquire.includes(option)).map((option) => `request(${option})`))
  names.push(...(await options(dlock.query)).map((option) => `query(${option})`))
  await lease.release()
  return names
}

/** How the members of these interfaces are called: they are options. Of those of `connect` each backend has its own. */
const OPTIONS = { LockOptions: 'acquire', RequestOptions: 'request', ServiceOption: 'query' }

/** What index.d.ts declares: names that exist when it runs, and names of types alone. */
function declared() {
  const [values, types] = [[], []]
  const ofConnect = new Set(['ConnectOptions', 'ConfigSource'])
  let owner
  for (const line of declarations.split('\n')) {
    const top = /^export (?:declare )?(class|interface|function|const|type) (\w+)(?:.*extends (\w+))?/.exec(line)
    const member = /^ {2}(?:readonly )?(?:static )?(?:\[Symbol\.)?(\w+)\]?\??[(<:]/.exec(line)
    if (top) {
      const [, kind, name, parent] = top
      if (ofConnect.has(parent)) ofConnect.add(name)
      owner = { name }
      // Errors have the members of their class.
      owner.quiet = ofConnect.has(name) || kind === 'function' || (kind === 'class' && parent === 'DlockError')
      if (OPTIONS[name] || ofConnect.has(name)) continue
      ;(kind === 'interface' || kind === 'type' ? types : values).push(name)
    } else if (member && owner && !owner.quiet && member[1] !== 'constructor') {
      values.push(OPTIONS[owner.name] ? `${OPTIONS[owner.name]}(${member[1]})` : `${owner.name}.${member[1]}`)
    }
  }
  return { values: new Set(values), types: new Set(types) }
}

const names = new Set(await real())
const { values, types } = declared()
const commonJs = Object.keys(require('dlock-rs'))
for (const name of commonJs) if (!(name in dlock)) names.add(`! require() gives ${name}, import doesn't`)
for (const name of Object.keys(dlock)) {
  if (name !== 'default' && name !== 'module.exports' && !commonJs.includes(name)) names.add(`! import gives ${name}, require() doesn't`)
}
for (const name of values) if (!names.has(name)) names.add(`! index.d.ts declares ${name}, which doesn't exist`)
for (const name of names) if (!name.startsWith('!') && !values.has(name)) names.add(`! index.d.ts doesn't declare ${name}`)
for (const name of types) names.add(name)
console.log([...names].sort().join('\n'))
