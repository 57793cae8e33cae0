"""The Python interpreter of the behaviour cases: reads steps, does them through the public API, prints their outcomes.

`run.py sync` uses the blocking API, `run.py asyncio` the other one. tests/README.md has the language. The steps are
written once, as coroutines; the blocking ones never wait for anything in one.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import socket
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import dlock

KINDS = {
    dlock.LockTimeout: "timeout",
    dlock.LockLost: "lost",
    dlock.NotHeld: "not-held",
    dlock.BackendError: "backend",
    dlock.ConfigError: "invalid",
    dlock.Unsupported: "unsupported",
    dlock.InternalError: "internal",
}


def seconds(text):
    """`300ms`, `-1s`, `nan`."""
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text.removesuffix("s"))


def unescape(word):
    r"""`''` is nothing, `\xHH` a byte, which may make a string that isn't UTF-8."""
    first, *rest = word.split("\\x")
    parts = [first.encode(), *(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)]
    return "" if word == "''" else b"".join(parts).decode(errors="surrogateescape")


def yes(is_so):
    """The outcome of a question."""
    return "yes" if is_so else "no"


def shown(value):
    """A field of a holder, `-` for what isn't known."""
    return "-" if value is None else yes(value) if isinstance(value, bool) else str(value)


def lock_of(client, key, options):
    """The lock on a key, with the options of a step."""
    terms = {}
    for option in options:
        name, value = option.split("=", 1)
        if name in ("ttl", "wait", "max_hold"):
            terms[name] = seconds(value)
        elif name in ("renew", "fair"):
            terms[name] = value == "true"
        elif name == "retry":
            tries, delay = value.split(",")
            terms[name] = (int(tries), seconds(delay))
        else:
            terms[name] = int(value) if name == "handoff" else value
    return client.lock(key, **terms)


class Sync:
    """The blocking API."""

    able = "able fork signed float bytes"

    async def call(self, owner, name, *args):
        """Calls a method with I/O."""
        return getattr(owner, name)(*args)

    def begin(self, acquire):
        """Starts an acquire; gives its future."""
        future = Future()

        def work():
            try:
                future.set_result(finish(acquire()))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future

    async def join(self, future):
        """Waits for an acquire."""
        return future.result()

    async def within(self, limit, is_so):
        """Looks again and again until it is so, or the time is up."""
        end = time.monotonic() + limit
        while not is_so() and time.monotonic() < end:
            time.sleep(0.002)
        return is_so()

    async def body(self, lock, limit):
        """A whole `with` block."""
        with lock:
            time.sleep(limit)

    async def lost(self, lease, limit):
        """Whether the loss was told in time."""
        return lease.lost.wait(limit)

    async def crowd(self, lock, many, inside):
        """Has many threads go through the lock, each some time inside."""

        def one():
            with lock:
                inside(1)
                time.sleep(0.001)
                inside(-1)

        with ThreadPoolExecutor(many) as pool:
            for done in [pool.submit(one) for _ in range(many)]:
                done.result()

    async def rush(self, lock, many):
        """Has many threads try at once; says how many got it."""
        start = threading.Barrier(many)

        def one():
            start.wait()
            return lock.acquire(blocking=False)

        with ThreadPoolExecutor(many) as pool:
            return sum(done.result() for done in [pool.submit(one) for _ in range(many)])


class Asyncio(Sync):
    """The asynchronous API."""

    able = "able cancel fork signed float bytes"

    async def call(self, owner, name, *args):
        return await getattr(owner, "a" + name)(*args)

    def begin(self, acquire):
        async def work():
            return finish(await acquire())

        return asyncio.ensure_future(work())

    async def join(self, future):
        return await future

    async def within(self, limit, is_so):
        end = time.monotonic() + limit
        while not is_so() and time.monotonic() < end:
            await asyncio.sleep(0.002)
        return is_so()

    async def body(self, lock, limit):
        async with lock:
            await asyncio.sleep(limit)

    async def lost(self, lease, limit):
        try:
            await asyncio.wait_for(lease.wait_lost(), limit)
        except asyncio.TimeoutError:
            return False
        return lease.lost.is_set()

    async def crowd(self, lock, many, inside):
        async def one():
            async with lock:
                inside(1)
                await asyncio.sleep(0.001)
                inside(-1)

        await asyncio.gather(*(one() for _ in range(many)))

    async def rush(self, lock, many):
        return sum(await asyncio.gather(*(lock.aacquire(blocking=False) for _ in range(many))))


class Timeout(Exception):
    """An acquire that said False."""


def finish(acquired):
    """Nothing, if the acquire said True."""
    if acquired is not True:
        raise Timeout(acquired)


class Actor:
    """What a process knows: its clients, its leases with their locks and counts of callbacks, its acquires."""

    def __init__(self, mode):
        self.mode = mode
        self.url = ""
        self.clients = {}
        self.leases = {}
        self.calls = {}

    async def step(self, line):
        """Does a step; gives the outcome."""
        step, _, name = line.strip().partition(" -> ")
        first, *words = map(unescape, step.split())
        try:
            if first == "case":
                return await self.case(*words)
            if first.startswith("$"):
                return await self.lease(first, *words)
            if first.startswith("%"):
                return await self.call(first, *words, name)
            return await self.client(first, name, *words)
        except (Timeout, asyncio.CancelledError) as error:
            return "cancelled" if isinstance(error, asyncio.CancelledError) else "timeout"
        except dlock.Error as error:
            return next((word for kind, word in KINDS.items() if isinstance(error, kind)), repr(error))
        except Exception as error:
            return repr(error)

    async def case(self, url):
        self.url = url
        self.calls.clear()
        self.leases.clear()
        for client in self.clients.values():
            await self.mode.call(client, "close")
        self.clients.clear()
        gc.collect()
        return "ok"

    def got(self, lock, name):
        if not name:
            return "lease"
        self.leases[name] = (lock.lease, lock, [])
        return name

    async def client(self, who, name, verb, *words):
        makers = {
            "connect": lambda: dlock.connect(*words),
            "default": dlock.connect,
            "service": lambda: dlock.lock("k", service=words[0]).client,
            "config": lambda: dlock.connect(config=words[0]),
        }
        if verb in makers:
            self.clients[who] = makers[verb]()
            return "ok"
        client = self.clients.setdefault(who, None) or dlock.connect(self.url)
        self.clients[who] = client
        match verb, *words:
            case "acquire", key, *options:
                lock = lock_of(client, key, options)
                finish(await self.mode.call(lock, "acquire"))
                return self.got(lock, name)
            case "try", key, *options:
                lock = lock_of(client, key, options)
                return self.got(lock, name) if await self.mode.call(lock, "acquire", False) else "busy"
            case "begin", key, *options:
                self.calls[name] = self.begin(client, key, options)
                return name
            case "with", key, body, *options:
                await self.mode.body(lock_of(client, key, options), seconds(body))
                return "released"
            case "rush", key, many:
                return str(await self.mode.rush(client.lock(key), int(many)))
            case "crowd", key, many:
                return await self.crowd(client.lock(key), int(many))
            case "holders", key, *fields:
                return await self.holders(client, key, *fields)
            case "break", key:
                return yes(await self.mode.call(client, "break_lock", key))
            case "name", key:
                return client.lock(key).backend_name
            case (("ping" | "close"), *_):
                await self.mode.call(client, verb)
                return "ok"
            case ("backend",):
                return client.backend
            case "register", service:
                dlock.register(service, client)
                return "ok"
            case "capability", word:
                return yes(getattr(client.capability, word))
        return f"no step of a client: {verb} {words}"

    def begin(self, client, key, options):
        try:
            lock = lock_of(client, key, options)
        except dlock.Error as error:
            future = Future()
            future.set_exception(error)
            return None, future
        twin = lock.acquire if type(self.mode) is Sync else lock.aacquire
        return lock, self.mode.begin(twin)

    async def crowd(self, lock, many):
        count, most, guard = 0, 0, threading.Lock()

        def inside(change):
            nonlocal count, most
            with guard:
                count += change
                most = max(most, count)

        await self.mode.crowd(lock, many, inside)
        return str(most)

    async def holders(self, client, key, field=None):
        everybody = await self.mode.call(client, "holders", key)
        if field is None:
            return str(len(everybody))
        if field == "aged":
            return " ".join(shown(None if holder.age is None else age_of(holder) < 5) for holder in everybody)
        return " ".join(shown(getattr(holder, field)) for holder in everybody)

    async def lease(self, name, verb, *words):
        if name not in self.leases:
            return f"there is no {name}"
        lease, _, called = self.leases[name]
        match verb, *words:
            case ("drop",):
                del self.leases[name], lease, _
                gc.collect()
                return "ok"
            case ("release",):
                await self.mode.call(lease, "release")
                return "released"
            case ("held",):
                return yes(lease.valid_for() > 0)
            case ("check",):
                lease.check()
                return "ok"
            case "renew", *ttl:
                await self.mode.call(lease, "renew", *map(seconds, ttl))
                return "ok"
            case ("fence",):
                return "none" if lease.fence is None else str(lease.fence)
            case ("token",):
                return lease.token
            case ("key",):
                return lease.key
            case ("ttl",):
                return f"{round(float(in_seconds(lease.ttl)) * 1000)}ms"
            case ("valid",):
                left = lease.valid_for()
                fits = "yes" if left <= in_seconds(lease.ttl) else "for longer than its ttl"
                return "no" if left == 0.0 else "forever" if left == float("inf") else fits
            case "lost-within", limit:
                return yes(await self.mode.lost(lease, seconds(limit)))
            case ("callback",):
                lease.on_lost(lambda *_: called.append(1))
                return "ok"
            case "called", limit:
                await self.mode.within(seconds(limit), lambda: called)
                return str(len(called))
        return f"no step of a lease: {verb} {words}"

    async def call(self, call, verb, lease):
        if call not in self.calls:
            return f"there is no {call}"
        lock, future = self.calls[call]
        if verb == "cancel":
            future.cancel()
            return "ok"
        if verb == "done":
            return yes(await self.mode.within(0.1, future.done))
        await (asyncio.wrap_future(future) if lock is None else self.mode.join(future))
        return self.got(lock, lease)


def in_seconds(value):
    """A duration of the API's."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def age_of(holder):
    """How long a holder has held."""
    return in_seconds(holder.age)


def drive(coroutine):
    """Runs a coroutine that never waits for a loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("a blocking step waited for a loop")


class Channel:
    """Where steps come from and outcomes go."""

    def __init__(self, source, target):
        self.source, self.target = source, target

    def exchange(self, outcome):
        """Gives the outcome of one step; gets the next. None: the end."""
        self.target.write(outcome + "\n")
        self.target.flush()
        line = self.source.readline()
        return None if line.strip() in ("", "exit") else line


def connected(path):
    """The channel of a child of fork."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    return Channel(peer.makefile("r", encoding="utf-8"), peer.makefile("w", encoding="utf-8"))


def fork_of(line):
    """The path to connect to, if this step is a fork."""
    words = line.split()
    return words[2] if words[1:2] == ["fork"] else None


def serve_sync(actor, channel):
    """Serves until the input ends. In the child of a fork it goes on with the child's channel."""
    outcome = actor.mode.able
    while (line := channel.exchange(outcome)) is not None:
        if path := fork_of(line):
            pid = os.fork()
            outcome = str(pid)
            if pid == 0:
                channel = connected(path)
        else:
            outcome = drive(actor.step(line))


async def serve_asyncio(actor, channel):
    """Serves until the input ends. The child of a fork gets a loop, and a thread, of its own."""
    loop = asyncio.get_running_loop()
    reader = ThreadPoolExecutor(1)
    outcome = actor.mode.able
    while (line := await loop.run_in_executor(reader, channel.exchange, outcome)) is not None:
        if path := fork_of(line):
            pid = os.fork()
            outcome = str(pid)
            if pid == 0:
                threading.Thread(target=anew, args=(actor, path)).start()
                for thread in threading.enumerate():
                    if thread is not threading.current_thread():
                        thread.join()
                atexit._run_exitfuncs()
                os._exit(0)
        else:
            outcome = await actor.step(line)
    reader.shutdown(wait=False)


def anew(actor, path):
    """Serves in the child of a fork."""
    asyncio.run(serve_asyncio(actor, connected(path)))


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8")
    channel = Channel(sys.stdin, sys.stdout)
    if sys.argv[1] == "sync":
        serve_sync(Actor(Sync()), channel)
    else:
        asyncio.run(serve_asyncio(Actor(Asyncio()), channel))
