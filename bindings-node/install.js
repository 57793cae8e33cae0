/**
 * npm's install script: leaves the package with an addon that works here. Takes the prebuilt one if it does, else builds
 * from the sources in the package. `--prebuilt`: builds one for this platform into prebuilt/, for `npm pack`.
 */
'use strict'

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..')
const built = path.join(__dirname, 'dlock.node')

/** Platform, processor and C library. */
function platform() {
  const name = `${process.platform}-${process.arch}`
  if (process.platform !== 'linux') return name
  process.report.excludeNetwork = true
  return `${name}-${process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl'}`
}

/** Whether an addon loads, in a process of its own: one made for another system may do anything. */
function loads(addon) {
  if (!fs.existsSync(addon)) return false
  const script = 'process.exit(typeof require(process.argv[1]).join === "function" ? 0 : 1)'
  return spawnSync(process.execPath, ['-e', script, addon], { stdio: 'ignore' }).status === 0
}

function fail(...lines) {
  console.error(lines.map((line) => `dlock-rs: ${line}`).join('\n'))
  process.exit(1)
}

/** What a command prints, or nothing if there is no such command. */
function says(command, ...args) {
  const { status, stdout } = spawnSync(command, args, { encoding: 'utf8', cwd: root })
  return status === 0 ? stdout : undefined
}

/** Whether a version is at least the other one. */
function atLeast(version, wanted) {
  const [[major, minor], [wantedMajor, wantedMinor]] = [version, wanted].map((text) => text.split('.').map(Number))
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
}

/**
 * Where protoc is. A checkout of the repository brings its own, pinned, which `.ci/setup` puts into .venv; an installed
 * package has to find one. `fetch`: whether it may do so.
 */
function protoc(fetch) {
  if (process.env.PROTOC !== undefined) return process.env.PROTOC
  if (says('protoc', '--version') !== undefined) return 'protoc'
  const own = path.join(root, '.venv', 'bin', 'protoc')
  const setup = path.join(root, '.ci', 'setup')
  if (fetch && says(own, '--version') === undefined && fs.existsSync(setup)) {
    console.log('dlock-rs: there is no protoc on PATH; getting one into .venv')
    spawnSync(setup, { stdio: ['ignore', 'inherit', 'inherit'] })
  }
  return says(own, '--version') === undefined ? undefined : own
}

/** Names all that is missing at once, and what to do; gives the variables that cargo needs. */
function checkTools() {
  const wanted = fs.readFileSync(path.join(root, 'Cargo.toml'), 'utf8').match(/^rust-version = "(.*)"/m)[1]
  const missing = []
  const rust = says('rustc', '--version')?.split(' ')[1]
  if (rust === undefined || says('cargo', '--version') === undefined) {
    missing.push(`Rust ${wanted} or newer with cargo: there is none on PATH. Install it with rustup (https://rustup.rs).`)
  } else if (!atLeast(rust, wanted)) {
    missing.push(`Rust ${wanted} or newer: this is ${rust}. Run 'rustup update stable'.`)
  }
  const compiler = process.env.CC ?? 'cc'
  if (process.platform !== 'win32' && says(compiler, '--version') === undefined) {
    missing.push(`a C compiler: there is no ${compiler} on PATH. On Debian and Ubuntu: apt-get install gcc libc6-dev.`)
  }
  const found = protoc(missing.length === 0)
  if (found === undefined) {
    missing.push('protoc, for etcd: there is none on PATH. On Debian and Ubuntu: apt-get install protobuf-compiler; or set PROTOC.')
  }
  if (missing.length > 0) {
    fail(
      `there is no prebuilt addon that works on ${platform()}, and to build one this is missing:`,
      ...missing.map((line) => `  - ${line}`),
      'Then install again, or run: npm rebuild dlock-rs',
    )
  }
  return { ...process.env, PROTOC: found }
}

/** The package has a part of the workspace only: cargo is told of the members that are there. True: some were missing. */
function reduceWorkspace() {
  const manifest = path.join(root, 'Cargo.toml')
  const before = fs.readFileSync(manifest, 'utf8')
  const after = before.replace(/^members = \[(.*)\]/m, (_, list) => {
    const members = list.split(',').filter((member) => fs.existsSync(path.join(root, member.trim().slice(1, -1), 'Cargo.toml')))
    return `members = [${members.map((member) => member.trim()).join(', ')}]`
  })
  if (after === before) return false
  // A new file: the old one may be shared with other projects by a package manager's store.
  fs.writeFileSync(`${manifest}.new`, after)
  fs.renameSync(`${manifest}.new`, manifest)
  return true
}

/** Builds the addon; gives where cargo put it. */
function build() {
  const env = checkTools()
  const reduced = reduceWorkspace()
  console.log(`dlock-rs: building the addon for ${platform()} with cargo; this takes a few minutes`)
  const args = ['build', '--release', '-p', 'dlock-node', '--message-format=json-render-diagnostics']
  const { status, stdout } = spawnSync('cargo', args, {
    cwd: root,
    env,
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  if (status !== 0) fail('cargo could not build the addon, see above. It needs to reach the registry of crates, or a mirror.')
  const messages = stdout.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line))
  const made = messages.find(({ reason, target }) => reason === 'compiler-artifact' && target.name === 'dlock_node')
  return { addon: made.filenames.find((name) => /\.(so|dylib|dll)$/.test(name)), reduced }
}

function copy(from, to) {
  fs.mkdirSync(path.dirname(to), { recursive: true })
  // Not over a file that a running process has mapped.
  fs.rmSync(to, { force: true })
  fs.copyFileSync(from, to)
}

const prebuilt = path.join(__dirname, 'prebuilt', platform(), 'dlock.node')
if (process.argv.includes('--prebuilt')) {
  fs.rmSync(path.join(__dirname, 'prebuilt'), { recursive: true, force: true })
  copy(build().addon, prebuilt)
} else if (!loads(prebuilt) && !loads(built)) {
  const { addon, reduced } = build()
  copy(addon, built)
  if (!loads(built)) fail(`the addon was built, but ${process.execPath} can't load it: ${built}`)
  // What an installed package doesn't need any more.
  if (reduced && process.env.CARGO_TARGET_DIR === undefined) {
    fs.rmSync(path.join(root, 'target'), { recursive: true, force: true })
  }
}
