/**
 * Plays test files, each in a realm of its own with Node's globals, as test runners do; all over the one addon:
 * `node --experimental-vm-modules tests/node/in_realms.mjs FILE...`
 */
import { readFileSync } from 'node:fs'
import { createRequire, isBuiltin } from 'node:module'
import { pathToFileURL } from 'node:url'
import vm from 'node:vm'

import { furnished, inside } from './realm.mjs'

/** Modules of one realm, by their addresses. */
function loader(context) {
  const loaded = new Map()
  const dlock = inside(context)
  const requiring = (from) => {
    const outer = createRequire(from)
    return Object.assign((name) => (name === 'dlock-rs' ? dlock : outer(name)), outer)
  }
  const exporting = (values, identifier) => {
    const set = function () {
      for (const [name, value] of Object.entries(values)) this.setExport(name, value)
    }
    return new vm.SyntheticModule(Object.keys(values), set, { context, identifier })
  }
  const make = async (address) => {
    if (address === 'dlock-rs') return exporting({ ...dlock, default: dlock }, address)
    if (address === 'node:module') return exporting({ ...(await import(address)), createRequire: requiring }, address)
    if (isBuiltin(address)) return exporting({ ...(await import(address)) }, address)
    return new vm.SourceTextModule(readFileSync(new URL(address), 'utf8'), {
      context,
      identifier: address,
      initializeImportMeta: (meta) => (meta.url = address),
      importModuleDynamically: async (name) => {
        const module = await get(name, address)
        if (module.status === 'unlinked') await module.link(link)
        await module.evaluate()
        return module
      },
    })
  }
  const get = (name, from) => {
    const address = isBuiltin(name) || name === 'dlock-rs' ? name : new URL(name, from).href
    if (!loaded.has(address)) loaded.set(address, make(address))
    return loaded.get(address)
  }
  const link = (name, { identifier }) => get(name, identifier)
  return async (file) => {
    const module = await get(pathToFileURL(file).href)
    await module.link(link)
    await module.evaluate()
  }
}

for (const file of process.argv.slice(2)) await loader(furnished())(file)
