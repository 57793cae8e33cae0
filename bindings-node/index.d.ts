/** Locks between threads, processes and hosts, with leases, fencing tokens and lost-lock detection. All times are milliseconds. */

/** How a lock is held. An option that is `undefined` counts as not given. */
export interface LockOptions {
  /** How long the backend keeps the lock with no renewal. Default 30,000. */
  ttl?: number | undefined
  /** How long to wait in all; 0: try once. Default: for ever. */
  wait?: number | undefined
  /** Instead of waiting: so many tries, so far apart. */
  retry?: readonly [tries: number, delay: number] | { readonly tries: number; readonly delay: number } | undefined
  /** Whether the lease is renewed for as long as it is held. Default true. */
  autoRenew?: boolean | undefined
  /** After this long the lease is lost and deleted at the backend. Default: no limit. */
  maxHold?: number | undefined
  /** The text that proves ownership, stored as given. Default: unique to each acquisition. */
  token?: string | undefined
  /** Free text shown by `contenders`. */
  label?: string | undefined
  /** First come, first served across processes: true demands it. Default: as the backend does. */
  fair?: boolean | undefined
  /** How many times in a row the lock may be passed on inside this process. Default 0. */
  handoff?: number | undefined
  /** Rejects the call with the signal's reason when aborted before the lock is obtained; nothing stays held. */
  signal?: AbortSignal | undefined
  /** Whether the lease keeps the process alive for as long as it is held. Default false. */
  ref?: boolean | undefined
}

/** What `request` takes beside: Web Locks' options. */
export interface RequestOptions extends LockOptions {
  /** Only `'exclusive'` is built; `'shared'` rejects with `UnsupportedError`. */
  mode?: 'exclusive' | 'shared' | undefined
  /** Tries once; the callback gets null when the lock is busy. */
  ifAvailable?: boolean | undefined
  /**
   * Breaks the lock first, as `breakLock` does, then acquires it at the usual place in line: whoever waited before may
   * come first. The former holder's `request` rejects with `LockLostError`.
   */
  steal?: boolean | undefined
}

/** Picks the client of a module function: a registered or configured service. Default: the default client. */
export interface ServiceOption {
  service?: string | undefined
}

/** Options that every backend has. */
export interface ConnectOptions {
  /** Stands before every key at the backend. */
  prefix?: string | undefined
  /** How long a call goes on without any answer from the backend. Default 5,000. */
  connectTimeout?: number | undefined
}

export interface MemoryOptions extends ConnectOptions {
  /** Which of the process's tables of locks. */
  name?: string | undefined
}

export interface FileOptions extends ConnectOptions {
  /** The directory of the lock files. */
  dir?: string | undefined
  /** Use a network file system all the same. */
  force?: boolean | undefined
}

/** Options of the backends with servers. */
export interface ServerOptions extends ConnectOptions {
  username?: string | undefined
  password?: string | undefined
  tls?: boolean | undefined
  /** Paths of PEM files. */
  ca?: string | undefined
  cert?: string | undefined
  key?: string | undefined
  /** The name that the server's certificate is to bear. */
  sni?: string | undefined
}

export interface RedisOptions extends ServerOptions {
  /** `host:port`. */
  addrs?: string | readonly string[] | undefined
  db?: number | undefined
  mode?: 'single' | undefined
}

export interface EtcdOptions extends ServerOptions {
  /** `host:port`, of one member or several of one cluster. */
  endpoints?: string | readonly string[] | undefined
  /** How long one endpoint may take to connect. Default: `connectTimeout`, divided by how many there are. */
  dialTimeout?: number | undefined
}

export interface ConfigSource {
  /** A YAML file, read strictly. */
  config: string
}

/** Returns the client of the configuration: environment, then YAML, else `file://`. No I/O. */
export function connect(): Promise<Client>
/** Returns the client of a YAML file. */
export function connect(source: ConfigSource): Promise<Client>
/** Returns the client of a URL, or of a backend by its name and typed options. No I/O; equal ones share everything. */
export function connect(backend: 'memory', options?: MemoryOptions): Promise<Client>
export function connect(backend: 'file', options?: FileOptions): Promise<Client>
export function connect(backend: 'redis', options?: RedisOptions): Promise<Client>
export function connect(backend: 'etcd', options?: EtcdOptions): Promise<Client>
export function connect(url: string): Promise<Client>

/** Acquires with the default client, or that of `service`. See `Client.acquire`. */
export function acquire(name: string, options?: LockOptions & ServiceOption): Promise<Lease>
/** See `Client.tryAcquire`. */
export function tryAcquire(name: string, options?: LockOptions & ServiceOption): Promise<Lease | null>
/** See `Client.request`. */
export function request<T>(name: string, callback: (lease: Lease) => T): Promise<Awaited<T>>
export function request<T>(
  name: string,
  options: RequestOptions & ServiceOption & { ifAvailable?: false | undefined },
  callback: (lease: Lease) => T,
): Promise<Awaited<T>>
export function request<T>(
  name: string,
  options: RequestOptions & ServiceOption,
  callback: (lease: Lease | null) => T,
): Promise<Awaited<T>>
/** See `Client.query`. */
export function query(options?: ServiceOption): Promise<Snapshot>
/** See `Client.contenders`. */
export function contenders(name: string, options?: ServiceOption): Promise<Contender[]>
/** See `Client.breakLock`. */
export function breakLock(name: string, options?: ServiceOption): Promise<boolean>
/** Names a client, so that `service` finds it anywhere in the process. */
export function register(service: string, client: Client): void

/** A handle on one backend. Clients of equal configuration share connection, local queue and watchdog. */
export class Client {
  private constructor()
  /** The backend's name. */
  readonly backend: string
  /** What the backend can do and promises. */
  readonly capabilities: Capabilities
  /**
   * Acquires the lock, waiting as the options say. A lease that is collected while held is released, with a warning.
   * Rejects with LockTimeoutError, BackendError, InvalidArgumentError, UnsupportedError, or the signal's reason.
   */
  acquire(name: string, options?: LockOptions): Promise<Lease>
  /** Tries once; null when the lock is busy. */
  tryAcquire(name: string, options?: LockOptions): Promise<Lease | null>
  /**
   * Runs the callback while holding the lock, and resolves to its result: the shape of Web Locks. Rejects with
   * LockLostError when the lock was lost meanwhile, unless the callback rejects first. A callback that never settles
   * keeps the lock.
   */
  request<T>(name: string, callback: (lease: Lease) => T): Promise<Awaited<T>>
  request<T>(
    name: string,
    options: RequestOptions & { ifAvailable?: false | undefined },
    callback: (lease: Lease) => T,
  ): Promise<Awaited<T>>
  request<T>(name: string, options: RequestOptions, callback: (lease: Lease | null) => T): Promise<Awaited<T>>
  /** Which keys this process's clients of equal configuration hold and wait for. */
  query(): Promise<Snapshot>
  /** Who holds the key and who waits for it, holder first. */
  contenders(name: string): Promise<Contender[]>
  /** Takes the lock away from whoever holds it; resolves to whether anybody did. */
  breakLock(name: string): Promise<boolean>
  /** Checks that the backend answers. */
  ping(): Promise<void>
  /** Ends this handle: its waiters get an error, its leases are lost to their holders and released. Idempotent. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** A lock that is held, until it is released, lost, or collected. */
export class Lease {
  private constructor()
  /** The user's key. */
  readonly name: string
  readonly mode: 'exclusive'
  /** The fencing token: greater for every later grant of the key; null where the backend has none. */
  readonly fence: bigint | null
  /** The text that proves ownership. */
  readonly token: string
  /** The ttl that was granted. */
  readonly ttl: number
  /** How long it still counts with no further renewal: 0 when not held, Infinity for no limit. Exact at the call. */
  validFor(): number
  /** Throws LockLostError, or NotHeldError after a release, unless the lock is still ours. Exact at the call. */
  check(): void
  /** Aborted with a LockLostError when the lock is lost; changes only when the event loop turns. */
  readonly signal: AbortSignal
  /** Gives the lock back. Idempotent. Rejects with BackendError when that wasn't confirmed within 5 s. */
  release(): Promise<{ lost: boolean }>
  /** Renews by hand, with a new ttl if one is given. */
  renew(ttl?: number): Promise<void>
  /** Gives the lock back; rejects with LockLostError if it was lost. */
  [Symbol.asyncDispose](): Promise<void>
}

/** A contender: it holds a key or waits for it. What the backend can't tell is null. */
export interface Contender {
  readonly held: boolean
  readonly token: string | null
  readonly label: string | null
  readonly host: string | null
  readonly pid: number | null
  readonly fence: bigint | null
  readonly age: number | null
  readonly ttl: number | null
}

/** A lock that is held or waited for, as in Web Locks. */
export interface LockInfo {
  readonly name: string
  readonly mode: 'exclusive'
  /** What this process's clients of the same configuration are called at the backend. */
  readonly clientId: string
}

export interface Snapshot {
  readonly held: LockInfo[]
  readonly pending: LockInfo[]
}

/** What a backend can do and promises. */
export interface Capabilities {
  readonly fence: boolean
  readonly ttl: boolean
  readonly fifo: boolean
  readonly shared: boolean
  readonly permits: boolean
  readonly handoff: boolean
  readonly processes: boolean
  readonly fork: boolean
  readonly minTtl: number
  readonly guarantee: string
}

/** Every error of dlock. `temporary`: trying again can help. */
export class DlockError extends Error {
  protected constructor()
  readonly code: string
  readonly kind: string
  readonly temporary: boolean
  readonly key: string | null
  readonly backend: string | null
}

/** The lock was busy until the deadline. */
export class LockTimeoutError extends DlockError {
  readonly code: 'ERR_DLOCK_TIMEOUT'
  readonly kind: 'timeout'
}

/** The lease is no longer ours, or can't be proven to be. */
export class LockLostError extends DlockError {
  readonly code: 'ERR_DLOCK_LOST'
  readonly kind: 'lost'
}

/** Nothing is held: the lease was released before. */
export class NotHeldError extends DlockError {
  readonly code: 'ERR_DLOCK_NOT_HELD'
  readonly kind: 'not-held'
}

/** The backend can't be reached, refuses or is overloaded. */
export class BackendError extends DlockError {
  readonly code: 'ERR_DLOCK_BACKEND'
  readonly kind: 'backend'
}

/** A key, option, URL or configuration that can't be used. */
export class InvalidArgumentError extends DlockError {
  readonly code: 'ERR_DLOCK_INVALID'
  readonly kind: 'invalid'
}

/** This backend can't do it; the message names those that can. */
export class UnsupportedError extends DlockError {
  readonly code: 'ERR_DLOCK_UNSUPPORTED'
  readonly kind: 'unsupported'
}

/** A defect of dlock. */
export class InternalError extends DlockError {
  readonly code: 'ERR_DLOCK_INTERNAL'
  readonly kind: 'internal'
}

/** The caller itself holds the key, so the wait could never end. */
export class DeadlockError extends DlockError {
  readonly code: 'ERR_DLOCK_DEADLOCK'
  readonly kind: 'deadlock'
}

/** The package's version. */
export const version: string
