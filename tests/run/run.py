"""The Python interpreter of the behaviour cases: reads steps, does them through the public API, prints their outcomes.

`run.py sync` uses the blocking API, `run.py asyncio` the other one; tests/README.md has the language. The steps are
written once, as coroutines; those of the blocking API never wait for a loop.
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
from functools import partial
from types import SimpleNamespace

import dlock

KINDS = {
    "timeout": dlock.LockTimeout,
    "lost": dlock.LockLost,
    "not-held": dlock.NotHeld,
    "backend": dlock.BackendError,
    "invalid": dlock.InvalidArgument,
    "unsupported": dlock.Unsupported,
    "internal": dlock.InternalError,
    "deadlock": dlock.DeadlockError,
}


def seconds(text):
    """`300ms`, `-1s`, `nan`."""
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text.removesuffix("s"))


def unescape(word):
    r"""`''` is nothing, `\xHH` a byte, which may make a string that isn't UTF-8."""
    first, *rest = word.split("\\x")
    parts = [first.encode(), *(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)]
    return "" if word == "''" else b"".join(parts).decode(errors="surrogateescape")


def shown(value):
    """An answer: `-` for what isn't known, `yes` and `no`, or as it is."""
    return "-" if value is None else ("yes" if value else "no") if isinstance(value, bool) else str(value)


def lock_of(client, key, options):
    """The lock on a key, with the options of a step."""
    read = {"ttl": seconds, "wait": seconds, "max_hold": seconds, "handoff": int}
    read |= dict.fromkeys(["auto_renew", "fair"], lambda value: value == "true")
    read["retry"] = lambda value: (int(value.split(",")[0]), seconds(value.split(",")[1]))
    pairs = [option.split("=", 1) for option in options]
    return client.lock(key, **{name: read.get(name, str)(value) for name, value in pairs})


class Timeout(Exception):
    """An acquire that said False."""


def checked(acquired):
    """Nothing, if the acquire said True."""
    if acquired is not True:
        raise Timeout(acquired)


class Sync:
    """The blocking API."""

    able = "able fork signed float bytes zero nul"

    async def call(self, owner, name, *args):
        return getattr(owner, name)(*args)

    def begin(self, lock):
        future = Future()

        def work():
            try:
                future.set_result(checked(lock.acquire()))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future

    async def join(self, future):
        future.result()

    async def pause(self, limit):
        time.sleep(limit)

    async def body(self, lock, limit):
        with lock:
            time.sleep(limit)

    async def lost(self, lease, limit):
        return lease.lost.wait(limit)

    async def crowd(self, lock, many, inside):
        def one():
            with lock:
                inside.append(1)
                time.sleep(0.001)
                return inside.pop() + len(inside)

        with ThreadPoolExecutor(many) as pool:
            return [done.result() for done in [pool.submit(one) for _ in range(many)]]

    async def rush(self, lock, many):
        start = threading.Barrier(many)

        def one():
            start.wait()
            return lock.acquire(blocking=False)

        with ThreadPoolExecutor(many) as pool:
            return sum(done.result() for done in [pool.submit(one) for _ in range(many)])


class Asyncio:
    """The asynchronous API."""

    able = "able cancel fork signed float bytes zero nul"

    async def call(self, owner, name, *args):
        return await getattr(owner, "a" + name)(*args)

    def begin(self, lock):
        async def work():
            checked(await lock.aacquire())

        return asyncio.ensure_future(work())

    async def join(self, future):
        await future

    async def pause(self, limit):
        await asyncio.sleep(limit)

    async def body(self, lock, limit):
        async with lock:
            await asyncio.sleep(limit)

    async def lost(self, lease, limit):
        try:
            return await asyncio.wait_for(lease.wait_lost(), limit)
        except asyncio.TimeoutError:
            return False

    async def crowd(self, lock, many, inside):
        async def one():
            async with lock:
                inside.append(1)
                await asyncio.sleep(0.001)
                return inside.pop() + len(inside)

        return await asyncio.gather(*(one() for _ in range(many)))

    async def rush(self, lock, many):
        return sum(await asyncio.gather(*(lock.aacquire(blocking=False) for _ in range(many))))


def service_of(name):
    """What stands for the client of a service: there is nothing to get but its locks."""
    dlock.lock("k", service=name)
    return SimpleNamespace(lock=partial(dlock.lock, service=name))


class Actor:
    """What a process has: clients, leases with lock and calls of their callbacks, acquires with their lock."""

    def __init__(self, mode):
        self.mode, self.url, self.clients, self.leases, self.calls = mode, "", {}, {}, {}

    async def step(self, line):
        """Does a step; gives the outcome."""
        step, _, name = line.strip().partition(" -> ")
        first, *words = map(unescape, step.split())
        do = {"$": self.lease, "%": self.acquire}.get(first[0], self.client)
        try:
            return await (self.case(*words) if first == "case" else do(first, name, *words))
        except asyncio.CancelledError:
            return "cancelled"
        except Timeout:
            return "timeout"
        except dlock.Error as error:
            return error.kind if type(error) is KINDS.get(error.kind) else repr(error)
        except Exception as error:
            return repr(error)

    async def case(self, url):
        self.url = url
        self.calls.clear()
        self.leases.clear()
        for client in self.clients.values():
            if isinstance(client, dlock.Client):
                await self.mode.call(client, "close")
        self.clients.clear()
        gc.collect()
        return "ok"

    async def until(self, limit, is_so):
        end = time.monotonic() + limit
        while not is_so() and time.monotonic() < end:
            await self.mode.pause(0.002)
        return is_so()

    def got(self, lock, name):
        if not name:
            return "lease"
        self.leases[name] = (lock.lease, lock, [])
        return name

    async def client(self, who, name, verb, *words):
        makers = {"connect": dlock.connect, "default": dlock.connect, "service": service_of}
        makers["config"] = lambda path: dlock.connect(config=path)
        if verb in makers:
            self.clients[who] = makers[verb](*words)
            return "ok"
        client = self.clients[who] = self.clients.get(who) or dlock.connect(self.url)
        match verb, *words:
            case "acquire", key, *options:
                lock = lock_of(client, key, options)
                checked(await self.mode.call(lock, "acquire"))
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
                return str(max(await self.mode.crowd(client.lock(key), int(many), [])))
            case "contenders", key:
                return str(len(await self.mode.call(client, "contenders", key)))
            case "contenders", key, field:
                everybody = await self.mode.call(client, "contenders", key)
                aged = field == "aged"
                return " ".join(shown(one.age and one.age < 5 if aged else getattr(one, field)) for one in everybody)
            case "break", key:
                return shown(await self.mode.call(client, "break_lock", key))
            case ("ping" | "close",):
                await self.mode.call(client, verb)
                return "ok"
            case ("backend",):
                return client.backend
            case "register", service:
                return dlock.register(service, client) or "ok"
            case "capability", word:
                return shown(getattr(client.capabilities, word))
        return f"no step of a client: {verb} {words}"

    def begin(self, client, key, options):
        try:
            lock = lock_of(client, key, options)
            return lock, self.mode.begin(lock)
        except dlock.Error as error:
            failed = Future()
            failed.set_exception(error)
            return None, failed

    async def lease(self, lease, _, verb, *words):
        if lease not in self.leases:
            return f"there is no {lease}"
        if verb == "drop":
            del self.leases[lease]
            gc.collect()
            return "ok"
        lease, _, called = self.leases[lease]
        left = lease.valid_for()
        reads = {
            "held": lambda: shown(left > 0 and not lease.lost.is_set()),
            "valid": lambda: {0.0: "no", float("inf"): "forever"}.get(left, shown(left <= lease.ttl)),
            "check": lambda: lease.check() or "ok",
            "fence": lambda: str(lease.fence).lower(),
            "ttl": lambda: f"{round(lease.ttl * 1000)}ms",
            "token": lambda: lease.token,
            "key": lambda: lease.key,
            "callback": lambda: lease.on_lost(called.append) or "ok",
        }
        match verb, *words:
            case "release" | "renew", *ttl:
                await self.mode.call(lease, verb, *map(seconds, ttl))
                return "released" if verb == "release" else "ok"
            case "lost-within", limit:
                return shown(await self.mode.lost(lease, seconds(limit)))
            case "called", limit:
                await self.until(seconds(limit), lambda: called)
                return str(len(called))
            case (read,) if read in reads:
                return reads[read]()
        return f"no step of a lease: {verb} {words}"

    async def acquire(self, call, name, verb):
        if call not in self.calls:
            return f"there is no {call}"
        lock, future = self.calls[call]
        if verb == "cancel":
            future.cancel()
            return "ok"
        if verb == "done":
            return shown(await self.until(0.1, future.done))
        await self.mode.join(future) if lock else future.result()
        return self.got(lock, name)


class Channel:
    """Where steps come from and outcomes go: our own input and output, or the socket of a child of fork."""

    def __init__(self, path=None):
        self.source, self.target = sys.stdin, sys.stdout
        if path:
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(path)
            self.source, self.target = peer.makefile("r", encoding="utf-8"), peer.makefile("w", encoding="utf-8")

    def exchange(self, outcome):
        """Gives the outcome of one step; gets the next. None: the end."""
        self.target.write(outcome + "\n")
        self.target.flush()
        line = self.source.readline()
        return None if line.strip() in ("", "exit") else line


def fork_of(line):
    """Forks, if this step says so: the number that fork gave, and the path the child connects to."""
    _, verb, *path = line.split()
    return (os.fork(), path[0]) if verb == "fork" else (None, None)


def serve_sync(actor):
    """Serves until the input ends. In the child of a fork it goes on with a channel of the child's own."""
    channel, outcome = Channel(), actor.mode.able
    while line := channel.exchange(outcome):
        child, path = fork_of(line)
        if child == 0:
            channel = Channel(path)
        if child is not None:
            outcome = str(child)
            continue
        try:
            actor.step(line).send(None)
        except StopIteration as done:
            outcome = done.value


async def serve_asyncio(actor, path=None):
    """Serves until the input ends. The child of a fork gets a thread with a loop of its own, and never comes back."""
    channel, outcome, reader = Channel(path), "0" if path else actor.mode.able, ThreadPoolExecutor(1)
    while line := await asyncio.get_running_loop().run_in_executor(reader, channel.exchange, outcome):
        child, path = fork_of(line)
        if child == 0:
            thread = threading.Thread(target=lambda path=path: asyncio.run(serve_asyncio(actor, path)))
            thread.start()
            thread.join()
            atexit._run_exitfuncs()
            os._exit(0)
        outcome = await actor.step(line) if child is None else str(child)
    reader.shutdown(wait=False)


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    serve_sync(Actor(Sync())) if sys.argv[1] == "sync" else asyncio.run(serve_asyncio(Actor(Asyncio())))
