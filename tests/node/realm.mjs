/** The package in another realm than Node's own, as test runners with `vm` contexts have it. */
import { readFileSync } from 'node:fs'
import { createRequire, isBuiltin } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import vm from 'node:vm'

const require = createRequire(import.meta.url)
const index = fileURLToPath(new URL('../../bindings-node/index.js', import.meta.url))

/** The package's JavaScript, loaded in this context. Node's own modules and the addon are those of the outer realm. */
export function inside(context, file = index, loaded = new Map()) {
  if (loaded.has(file)) return loaded.get(file).exports
  const module = { exports: {} }
  loaded.set(file, module)
  const source = `(function (exports, require, module, __filename, __dirname) {${readFileSync(file, 'utf8')}\n})`
  const own = (name) => {
    if (isBuiltin(name)) return require(name)
    const found = path.resolve(path.dirname(file), name)
    return found.endsWith('.node') ? require(found) : inside(context, found, loaded)
  }
  const run = vm.runInContext(source, context, { filename: file })
  run(module.exports, own, module, file, path.dirname(file))
  return module.exports
}

/** A realm of the language alone. */
export const bare = () => vm.createContext({})

/** A realm that has Node's globals, too. */
export function furnished() {
  const context = bare()
  const inner = vm.runInContext('globalThis', context)
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    if (!Object.hasOwn(inner, name)) Object.defineProperty(inner, name, Object.getOwnPropertyDescriptor(globalThis, name))
  }
  inner.globalThis = inner.global = inner
  for (const name of ['dispose', 'asyncDispose']) {
    if (!(name in inner.Symbol)) Object.defineProperty(inner.Symbol, name, { value: Symbol[name] })
  }
  return context
}
