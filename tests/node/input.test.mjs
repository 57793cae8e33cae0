/** What can't be used is refused: by a rejection with its type, at once, and with nothing left behind. */
import assert from 'node:assert/strict'
import test from 'node:test'

import * as dlock from 'dlock-rs'

import { failure, file, memory } from './help.mjs'

const client = await dlock.connect(memory())
const CALLS = {
  acquire: (...args) => client.acquire(...args),
  tryAcquire: (...args) => client.tryAcquire(...args),
  request: (name, ...args) => client.request(name, ...args, () => assert.fail('called')),
}
const WRONG = [undefined, null, 5, 5n, true, {}, [], () => {}, Symbol('s'), new String('k'), Object.create(null)]

async function refuses(code, call) {
  let promise
  assert.doesNotThrow(() => (promise = call()), 'a function that returns a promise rejects')
  const error = await failure(promise)
  assert.equal(error.code, code, error.stack)
  return error
}

for (const [name, call] of Object.entries(CALLS)) {
  test(`${name}: a name of the wrong type`, async () => {
    for (const wrong of WRONG) {
      const error = await refuses('ERR_INVALID_ARG_TYPE', () => call(wrong))
      assert.ok(error instanceof TypeError)
    }
  })

  test(`${name}: options of the wrong type`, async () => {
    for (const wrong of [null, 5, 'ttl', true, [], Symbol('s')]) {
      await refuses('ERR_INVALID_ARG_TYPE', () => call('k', wrong))
    }
  })

  test(`${name}: option values of the wrong type`, async () => {
    const wrong = {
      ttl: ['5', null, true, {}, 5n],
      wait: ['5', null, []],
      maxHold: ['5', null],
      retry: [5, '3', null, [3], [3, '5'], [1, 2, 3], {}, { tries: 3 }, { tries: '3', delay: 5 }],
      autoRenew: [1, 'true', null],
      fair: [1, null],
      handoff: ['1', null, 1n],
      token: [5, null, {}],
      label: [5, null],
      signal: [5, null, {}, 'abort', { aborted: false }],
      ref: [1, null],
    }
    for (const [option, values] of Object.entries(wrong)) {
      for (const value of values) {
        const error = await refuses('ERR_INVALID_ARG_TYPE', () => call('k', { [option]: value }))
        assert.match(error.message, new RegExp(`"${option}"`))
      }
    }
  })

  test(`${name}: option values out of range`, async () => {
    const wrong = {
      ttl: [-1, 0, 99, NaN, Infinity, -Infinity, 1e300, 4e13],
      wait: [-1, NaN, -Infinity, 1e300, 4e13],
      maxHold: [-1, 0, NaN, 4e13],
      retry: [[0, 10], [-1, 10], [1.5, 10], [2, -10], [2, NaN], [2 ** 32, 1], { tries: 0, delay: 1 }],
      handoff: [-1, 1.5, 2 ** 32, NaN],
      token: ['', 'a\0b', 'x'.repeat(1025), 'a\ud800'],
      label: ['a\0b', 'x'.repeat(1025), '\udc00'],
    }
    for (const [option, values] of Object.entries(wrong)) {
      for (const value of values) {
        const error = await refuses('ERR_DLOCK_INVALID', () => call('k', { [option]: value }))
        assert.ok(error instanceof dlock.InvalidArgumentError)
      }
    }
  })

  test(`${name}: an unknown option, and which are known`, async () => {
    for (const option of ['tll', 'TTL', 'max_hold', 'service', '__proto__x', 'toString']) {
      const error = await refuses('ERR_DLOCK_INVALID', () => call('k', { [option]: 1 }))
      assert.match(error.message, new RegExp(`"${option}".*ttl, wait, retry, autoRenew, maxHold`))
    }
  })

  test(`${name}: an unknown option, and which was meant`, async () => {
    const meant = { renew: 'autoRenew', auto_renew: 'autoRenew', timeout: 'wait', max_hold: 'maxHold', tll: 'ttl' }
    for (const [option, known] of Object.entries(meant)) {
      const error = await refuses('ERR_DLOCK_INVALID', () => call('k', { [option]: 1 }))
      assert.ok(error.message.includes(`"${option}" doesn't exist (did you mean ${known}?); there are: ttl`), error.message)
    }
  })

  test(`${name}: names that are no keys`, async () => {
    for (const key of ['', 'x'.repeat(513), '鍵'.repeat(171), 'a\0b', 'a\ud800', '\udc00b', '\ud83d'.repeat(2)]) {
      await refuses('ERR_DLOCK_INVALID', () => call(key))
    }
    await refuses('ERR_DLOCK_INVALID', () => call('x'.repeat(100_000)))
  })
}

test('names that look bad and are keys', async () => {
  for (const key of ['\ufffd', '😀', 'x'.repeat(512), '鍵'.repeat(170), '../../etc/passwd', ' ', '\u202e']) {
    const lease = await client.acquire(key)
    assert.equal(lease.name, key)
    assert.equal((await client.query()).held[0].name, key)
    await lease.release()
  }
})

test('undefined options are options that were not given', async () => {
  const names = ['ttl', 'wait', 'retry', 'autoRenew', 'maxHold', 'token', 'label', 'fair', 'handoff', 'signal', 'ref']
  const none = Object.fromEntries(names.map((name) => [name, undefined]))
  await (await client.acquire('k', none)).release()
  await client.request('k', { ...none, mode: undefined, steal: undefined, ifAvailable: undefined }, () => {})
})

test('both ways to say retry', async () => {
  const lease = await client.acquire('k')
  for (const retry of [[2, 1], { tries: 2, delay: 1 }]) {
    await refuses('ERR_DLOCK_TIMEOUT', () => client.acquire('k', { retry }))
  }
  await lease.release()
})

test('other calls: arguments of the wrong type', async () => {
  const lease = await client.acquire('k')
  for (const wrong of [null, 5, {}, []]) {
    await refuses('ERR_INVALID_ARG_TYPE', () => client.contenders(wrong))
    await refuses('ERR_INVALID_ARG_TYPE', () => client.breakLock(wrong))
    assert.throws(() => dlock.register('x', wrong), { code: 'ERR_INVALID_ARG_TYPE' })
    assert.throws(() => dlock.register(wrong, client), { code: 'ERR_INVALID_ARG_TYPE' })
  }
  for (const wrong of [null, '5', {}]) await refuses('ERR_INVALID_ARG_TYPE', () => lease.renew(wrong))
  for (const wrong of [-1, 0, NaN, 1e300]) await refuses('ERR_DLOCK_INVALID', () => lease.renew(wrong))
  assert.throws(() => dlock.register('', client), { code: 'ERR_DLOCK_INVALID' })
  await refuses('ERR_DLOCK_INVALID', () => client.contenders(''))
  lease.check()
  await lease.release()
})

test('a request without a callback', async () => {
  for (const args of [['k'], ['k', {}], ['k', {}, 5], ['k', {}, null], ['k', undefined, {}]]) {
    await refuses('ERR_INVALID_ARG_TYPE', () => client.request(...args))
  }
})

test('connect: arguments that make no client', async () => {
  for (const wrong of [5, true, () => {}, Symbol('s')]) {
    await refuses('ERR_INVALID_ARG_TYPE', () => dlock.connect(wrong))
  }
  for (const unset of [[undefined], [null], [undefined, undefined], [undefined, {}], [''], ['', {}], [' ']]) {
    const error = await refuses('ERR_DLOCK_INVALID', () => dlock.connect(...unset))
    assert.match(error.message, /variable isn't set/)
  }
  for (const config of [undefined, null, '']) {
    const error = await refuses('ERR_DLOCK_INVALID', () => dlock.connect({ config }))
    assert.match(error.message, /variable isn't set/)
  }
  const nothing = await refuses('ERR_DLOCK_INVALID', () => dlock.connect({}))
  assert.match(nothing.message, /config is undefined/)
  await refuses('ERR_INVALID_ARG_TYPE', () => dlock.connect({ config: 5 }))
  await refuses('ERR_INVALID_ARG_TYPE', () => dlock.connect('file', { dir: {} }))
  await refuses('ERR_INVALID_ARG_TYPE', () => dlock.connect('redis', { addrs: [5] }))
  await refuses('ERR_INVALID_ARG_TYPE', () => dlock.connect('redis', 5))
  await refuses('ERR_DLOCK_INVALID', () => dlock.connect({ confg: 'x' }))
  await refuses('ERR_DLOCK_INVALID', () => dlock.connect({ config: '/nonexistent.yaml' }))
  await refuses('ERR_DLOCK_INVALID', () => dlock.connect('memory://', {}))
  await refuses('ERR_DLOCK_INVALID', () => dlock.connect('nosuch'))
  await refuses('ERR_DLOCK_INVALID', () => dlock.connect('redis', { db: -1 }))
  await refuses('ERR_DLOCK_INVALID', () => dlock.connect('redis', { connectTimeout: -1 }))
  await refuses('ERR_DLOCK_INVALID', () => dlock.connect('redis', { connectTimeout: NaN }))
  await refuses('ERR_DLOCK_INVALID', () => dlock.connect('file\ud800'))
  const error = await refuses('ERR_DLOCK_INVALID', () => dlock.connect('redis', { adrs: 'a:1' }))
  assert.match(error.message, /addrs/)
})

test('module functions: as the methods, and service', async () => {
  process.env.DLOCK_URL = memory()
  for (const call of [dlock.acquire, dlock.tryAcquire, dlock.contenders, dlock.breakLock]) {
    await refuses('ERR_INVALID_ARG_TYPE', () => call(5))
    await refuses('ERR_INVALID_ARG_TYPE', () => call('k', { service: 5 }))
    await refuses('ERR_INVALID_ARG_TYPE', () => call('k', null))
    await refuses('ERR_DLOCK_INVALID', () => call('k', { service: 'nosuch' }))
    await refuses('ERR_DLOCK_INVALID', () => call('k', { nosuch: 1 }))
  }
  await refuses('ERR_INVALID_ARG_TYPE', () => dlock.request('k'))
  await refuses('ERR_DLOCK_INVALID', () => dlock.query({ servce: 'x' }))
  delete process.env.DLOCK_URL
})

test('what a backend can not do', async () => {
  const files = await dlock.connect(file())
  const error = await refuses('ERR_DLOCK_UNSUPPORTED', () => files.acquire('k', { fair: true }))
  assert.match(error.message, /memory|redis/, 'those that can are named')
  await refuses('ERR_DLOCK_UNSUPPORTED', () => client.acquire('k', { handoff: 1 }))
  await refuses('ERR_DLOCK_UNSUPPORTED', () => client.request('k', { mode: 'shared' }, () => {}))
})

test('after all this nothing is held', async () => {
  assert.deepEqual(await client.query(), { held: [], pending: [] })
})
