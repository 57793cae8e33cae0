/** What the types allow, and what they refuse. Never run: `tsc` checks it. */
import * as dlock from 'dlock-rs'
import standard, { type Contender, type LockOptions, type RequestOptions, type Snapshot } from 'dlock-rs'

export async function right(): Promise<void> {
  const client: dlock.Client = await dlock.connect('redis://localhost')
  await dlock.connect()
  await dlock.connect('redis', { addrs: ['a:1'], password: 'p', db: 0, connectTimeout: 500 })
  await dlock.connect('etcd', { endpoints: 'a:1,b:2', username: 'u', dialTimeout: 500 })
  await dlock.connect('file', { dir: '/d' })
  await dlock.connect({ config: 'dlock.yaml' })
  const options: LockOptions = { ttl: 1, wait: 0, retry: [3, 10], autoRenew: false, maxHold: 5, token: 't', label: 'l' }
  const more: LockOptions = { fair: true, handoff: 0, ref: true, retry: { tries: 1, delay: 2 }, signal: undefined }
  const lease: dlock.Lease = await client.acquire('k', { ...options, ...more, signal: AbortSignal.timeout(5) })
  const tried: dlock.Lease | null = await client.tryAcquire('k')
  const fence: bigint | null = lease.fence
  const { lost }: { lost: boolean } = await lease.release()
  lease.signal.addEventListener('abort', () => lease.signal.throwIfAborted())
  await lease.renew()
  await lease.renew(500)
  const number: number = await client.request('k', (lease) => lease.validFor())
  const text: string = await client.request('k', { mode: 'exclusive' }, async (lease) => lease.name)
  const maybe: string | undefined = await dlock.request('k', { ifAvailable: true, service: 's' }, (lease) => lease?.name)
  const asked: RequestOptions = { steal: true }
  await client.request('k', asked, (lease) => lease?.check())
  const snapshot: Snapshot = await dlock.query({ service: 's' })
  const names: string[] = snapshot.held.map(({ name }) => name)
  const contenders: Contender[] = await client.contenders('k')
  dlock.register('audit', client)
  await dlock.acquire('k', { service: 'audit' })
  const backend: string = standard.Client.name + client.backend + client.capabilities.minTtl
  {
    await using other = await dlock.acquire('k')
    other.check()
  }
  await using closing = client
  try {
    await closing.ping()
  } catch (error) {
    if (error instanceof dlock.LockLostError) {
      const code: 'ERR_DLOCK_LOST' = error.code
      const temporary: boolean = error.temporary
      void [code, temporary]
    }
  }
  void [tried, fence, lost, number, text, maybe, names, contenders, backend]
}

export async function wrong(client: dlock.Client, lease: dlock.Lease): Promise<void> {
  // @ts-expect-error: a name is a string
  await client.acquire(5)
  // @ts-expect-error: milliseconds are a number
  await client.acquire('k', { ttl: '5s' })
  // @ts-expect-error: no such option
  await client.acquire('k', { tll: 5 })
  // @ts-expect-error: only module functions take a service
  await client.acquire('k', { service: 's' })
  // @ts-expect-error: options of a request
  await client.acquire('k', { steal: true })
  // @ts-expect-error: two numbers
  await client.acquire('k', { retry: [3] })
  // @ts-expect-error: a callback is missing
  await client.request('k')
  // @ts-expect-error: null when it is busy
  await client.request('k', { ifAvailable: true }, (lease) => lease.name)
  // @ts-expect-error: null when it is busy
  ;(await client.tryAcquire('k')).release()
  // @ts-expect-error: clients are connected
  new dlock.Client()
  // @ts-expect-error: leases are acquired
  new dlock.Lease()
  // @ts-expect-error: it is what was granted
  lease.ttl = 5
  // @ts-expect-error: no such option of this backend
  await dlock.connect('file', { addrs: 'a:1' })
  // @ts-expect-error: a URL has its options in it
  await dlock.connect('redis://a', { db: 1 })
  // @ts-expect-error: a name and a client
  dlock.register('audit')
  // @ts-expect-error: a bigint
  const fence: number | null = lease.fence
  void fence
}
