"""What redis-py's lock does under faults. `peer.py WHAT PORT`; the tests beside it say what comes of it."""

from __future__ import annotations

import asyncio
import sys

import redis
import redis.asyncio
from redis.asyncio.lock import Lock
from redis.exceptions import LockError


def acquire(port: int) -> None:
    """Tries once."""
    lock = redis.Redis(port=port).lock("k", timeout=8)
    print("acquired", lock.acquire(blocking=False))


def release(port: int) -> None:
    """Releases what it holds."""
    lock = redis.Redis(port=port).lock("k", timeout=8)
    print("acquired", lock.acquire(blocking=False))
    try:
        lock.release()
        print("released")
    except LockError as error:
        print(type(error).__name__)


async def cancel(port: int) -> None:
    """Cancels 400 acquires after 0 to 2 ms."""
    client = redis.asyncio.Redis(port=port)
    await client.ping()

    async def one(i: int) -> None:
        lock = Lock(client, f"k{i}", timeout=30)
        task = asyncio.create_task(lock.acquire())
        await asyncio.sleep(i * 0.000005)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return
        await lock.release()

    for i in range(400):
        await one(i)
    await client.aclose()


if __name__ == "__main__":
    what, number = sys.argv[1], int(sys.argv[2])
    if what == "cancel":
        asyncio.run(cancel(number))
    else:
        {"acquire": acquire, "release": release}[what](number)
