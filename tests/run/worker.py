"""The Python worker of dlock-soak: threads or tasks that take locks, use and misuse them, and write down what happens.

`worker.py sync JOB` uses the blocking API, `worker.py asyncio JOB` the other one; tests/README.md has what JOB says and
what is printed. A turn is written once, as a coroutine; that of the blocking API never waits for a loop.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any, Protocol

import dlock

# The clock of the library, the same for all processes of a host.
CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
NEVER = 2**64 - 1
STOP = threading.Event()


def now() -> int:
    """Nanoseconds of the library's clock."""
    return time.clock_gettime_ns(CLOCK)


class Pen:
    """Writes the lines of this process, each in one go."""

    def __init__(self, process: str) -> None:
        self.process, self.numbers = process, itertools.count(1)

    def write(self, **line: object) -> None:
        """Writes a line; the time is now unless it says so."""
        line = {"t": now(), "p": self.process, **{name: value for name, value in line.items() if value is not None}}
        os.write(1, json.dumps(line, separators=(",", ":")).encode() + b"\n")


class Store:
    """A client of the protected resource."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port))).makefile("rwb")

    def ask(self, line: str) -> str:
        """Sends a line, gives the answer."""
        self.stream.write(line.encode() + b"\n")
        self.stream.flush()
        return self.stream.readline().decode().strip()


class Mode(Protocol):
    """How calls are made."""

    async def call(self, owner: object, name: str, *args: object) -> Any:
        """Makes a call."""

    async def pause(self, seconds: float) -> None:
        """Sleeps."""

    async def given_up(self, lock: dlock.Lock, seconds: float) -> bool:
        """Acquires, and gives up after a while of its own accord."""


class Sync:
    """The blocking API."""

    async def call(self, owner: object, name: str, *args: object) -> Any:
        """Makes a call."""
        return getattr(owner, name)(*args)

    async def pause(self, seconds: float) -> None:
        """Sleeps."""
        time.sleep(seconds)

    async def given_up(self, lock: dlock.Lock, seconds: float) -> bool:
        """Acquires, for so long at most: nothing can cancel a blocking call but its deadline."""
        return lock.acquire(timeout=seconds)


class Asyncio:
    """The API for asyncio."""

    async def call(self, owner: object, name: str, *args: object) -> Any:
        """Makes a call; those that do no I/O have no twin."""
        return await getattr(owner, "a" + name)(*args)

    async def pause(self, seconds: float) -> None:
        """Sleeps."""
        await asyncio.sleep(seconds)

    async def given_up(self, lock: dlock.Lock, seconds: float) -> bool:
        """Acquires, and cancels that after a while."""
        call = asyncio.ensure_future(lock.aacquire())
        done, _ = await asyncio.wait([call], timeout=seconds)
        if not done:
            call.cancel()
        return await call


def failed(error: BaseException) -> tuple[str, str]:
    """Whether a failed call surely changed nothing, and the kind of its error."""
    if isinstance(error, asyncio.CancelledError):
        return "fail", "cancelled"
    if isinstance(error, dlock.Error):
        return "unknown" if isinstance(error, dlock.BackendError) else "fail", error.kind or "internal"
    return "fail", "internal"


class Worker:
    """One thread or task."""

    def __init__(self, job: dict[str, Any], mode: Mode, pen: Pen, number: int) -> None:
        self.job, self.mode, self.pen, self.number = job, mode, pen, number
        self.client, self.store = dlock.connect(job["url"]), Store(job["store"])
        self.random = random.Random(job["seed"] ^ (number << 32))
        self.ttl, self.patience = job["ttl_ms"] / 1000, job["patience_ms"] / 1000

    async def work(self) -> None:
        """Takes one lock after the other until it is told to stop."""
        while not STOP.is_set():
            await (self.plain_turn() if self.job["plain"] else self.turn())

    async def turn(self) -> None:
        """One lock, from its acquire to its end."""
        key, stale = self.random.choice(self.job["keys"]), self.random.random() < 0.01
        ttl = self.job["stale_ms"] / 1000 if stale else self.ttl
        renew = not stale and self.random.random() < 0.75
        lock = self.client.lock(key, ttl=ttl, auto_renew=renew, wait=self.random.random() * self.ttl * 2)
        lease, of = await self.acquire(lock, renew)
        if lease is None:
            return await self.mode.pause(self.random.random() * 0.005)
        self.watch(lease, of)
        chance = self.random.random()
        if stale:
            await self.update(lease, ttl * 4 / 3)
            self.validate(lease, of, renew)
            await self.ask(lease, of, "renew")
        elif chance < 0.6:
            await self.update(lease, self.random.random() * 0.005)
        elif chance < 0.7:
            self.validate(lease, of, renew)
        elif chance < 0.8:
            await self.ask(lease, of, "renew")
            self.validate(lease, of, renew)
        elif chance < 0.88:
            longest = self.ttl * 2 if self.random.random() < 0.06 else 0.02
            await self.mode.pause(self.random.random() * longest)
            self.validate(lease, of, renew)
        if self.random.random() < 0.08:
            op = self.begin("drop", key, of, 0)
            del lock, lease
            self.end(op, "drop", key, of)
        else:
            await self.ask(lease, of, "release")
        await self.mode.pause(self.random.random() * 0.003)
        return None

    async def plain_turn(self) -> None:
        """One lock, taken and given back."""
        key, renew = self.random.choice(self.job["keys"]), True
        if self.job["rogue"] and self.random.random() < 0.05:
            return await self.break_in(key)
        lock = self.client.lock(key, ttl=self.ttl, auto_renew=renew, wait=self.patience)
        op = self.begin("acquire", key, 0, self.patience)
        try:
            got = await self.mode.call(lock, "acquire")
        except (dlock.Error, asyncio.CancelledError) as error:
            return self.end(op, "acquire", key, 0, error)
        lease = self.granted(op, "acquire", lock, got, renew)
        if lease is None:
            return None
        self.watch(lease, op)
        await self.update(lease, 0)
        await self.ask(lease, op, "release")
        return await self.mode.pause(self.random.random() * 0.001)

    async def break_in(self, key: str) -> None:
        """Enters without the lock."""
        op = self.begin("acquire", key, 0, self.patience)
        self.end(op, "acquire", key, 0, tok="rogue", vu=NEVER)
        await self.mode.pause(0.001)
        self.end(self.begin("release", key, op, self.patience), "release", key, op)

    def watch(self, lease: dlock.Lease, of: int) -> None:
        """Writes down when a loss is told."""
        key = lease.key
        lease.on_lost(lambda lease: self.pen.write(w=self.number, of=of, k=key, ph="lost", f="told"))

    def begin(self, verb: str, key: str, of: int, limit: float) -> int:
        """Writes that a call is about to be made; gives its number."""
        op, t = next(self.pen.numbers), now()
        self.pen.write(t=t, w=self.number, op=op, of=of, ph="inv", f=verb, k=key, by=t + int(limit * 1e9))
        return op

    def end(self, op: int, verb: str, key: str, of: int, error: BaseException | None = None, **more: object) -> None:
        """Writes how a call ended."""
        phase, kind = failed(error) if error else ("ok", None)
        self.pen.write(w=self.number, op=op, of=of, ph=phase, f=verb, k=key, err=kind, **more)

    async def acquire(self, lock: dlock.Lock, renew: bool) -> tuple[dlock.Lease | None, int]:
        """Waits, tries, or gives up on the way."""
        chance, key = self.random.random(), lock.key
        wait = self.random.random() * self.ttl * 2
        verb, limit = ("try", self.patience) if chance < 0.15 else ("acquire", wait)
        op = self.begin(verb, key, 0, limit)
        try:
            if verb == "try":
                got = await self.mode.call(lock, "acquire", False)
            elif chance < 0.25:
                got = await self.mode.given_up(lock, self.random.random() * 0.02)
            else:
                got = await self.mode.call(lock, "acquire", True, wait)
        except (dlock.Error, asyncio.CancelledError) as error:
            self.end(op, verb, key, 0, error)
            return None, 0
        return self.granted(op, verb, lock, got, renew), op

    def granted(self, op: int, verb: str, lock: dlock.Lock, got: bool, renew: bool) -> dlock.Lease | None:
        """Writes what an acquire answered; gives the lease."""
        t, lease = now(), lock.lease if got else None
        if lease is None:
            kind = "busy" if verb == "try" else "timeout"
            self.pen.write(w=self.number, op=op, ph="fail", f=verb, k=lock.key, err=kind)
            return None
        vu = self.valid_until(lease)
        if vu is None:
            vu = t  # it was over before it could be looked at
        self.end(op, verb, lock.key, 0, t=t, tok=lease.token, fence=lease.fence, vu=vu, auto=renew)
        return lease

    def valid_until(self, lease: dlock.Lease) -> int | None:
        """Until when it counts; not later than it does. None: it doesn't, and since when can't be told."""
        t, left = now(), lease.valid_for()
        if left == 0:
            return None
        return NEVER if math.isinf(left) else t + int(left * 1e9)

    def validate(self, lease: dlock.Lease, of: int, renew: bool) -> None:
        """Asks whether it counts."""
        op = self.begin("validate", lease.key, of, 0)
        try:
            lease.check()
        except dlock.Error as error:
            return self.end(op, "validate", lease.key, of, error)
        # Nothing but a renewal moves the end that was stated before.
        return self.end(op, "validate", lease.key, of, vu=self.valid_until(lease) if renew else None)

    async def ask(self, lease: dlock.Lease, of: int, verb: str) -> None:
        """Renews or releases."""
        op = self.begin(verb, lease.key, of, self.patience)
        try:
            await self.mode.call(lease, verb)
        except (dlock.Error, asyncio.CancelledError) as error:
            return self.end(op, verb, lease.key, of, error)
        return self.end(op, verb, lease.key, of, vu=self.valid_until(lease) if verb == "renew" else None)

    async def update(self, lease: dlock.Lease, think: float) -> None:
        """What the lock is for."""
        if lease.fence is not None:
            lengths = self.store.ask(f"read {lease.key} {lease.fence}")
            await self.mode.pause(think)
            self.store.ask(f"write {lease.key} {lease.fence} {lengths}")


def driven(work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that never waits for a loop."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for a loop")


async def together(workers: list[Worker]) -> None:
    """Runs all workers as tasks."""
    await asyncio.gather(*(worker.work() for worker in workers))


def stop_at_end() -> None:
    """Has all workers stop when the input ends."""
    sys.stdin.read()
    STOP.set()


def main() -> None:
    """Works until the input ends."""
    job = json.loads(sys.argv[2])
    mode: Mode = Sync() if sys.argv[1] == "sync" else Asyncio()
    threading.Thread(target=stop_at_end, daemon=True).start()
    pen = Pen(job["name"])
    workers = [Worker(job, mode, pen, number) for number in range(1, job["threads"] + 1)]
    if isinstance(mode, Asyncio):
        return asyncio.run(together(workers))
    threads = [threading.Thread(target=driven, args=[worker.work()]) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return None


if __name__ == "__main__":
    main()
