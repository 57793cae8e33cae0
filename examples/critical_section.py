"""A critical section with a distributed lock: one at a time, among all threads, tasks and processes of this user."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import dlock

balance = 0


def deposit(amount: int) -> None:
    """Blocking code: waits for the lock as long as it takes."""
    global balance
    with dlock.lock("account:7"):
        before = balance
        threading.Event().wait(0.001)
        balance = before + amount


@dlock.locked("account:{account}")
async def deposit_later(account: int, amount: int) -> None:
    """The same lock from asyncio, as a decorator; the loop goes on while this waits."""
    global balance
    before = balance
    await asyncio.sleep(0.001)
    balance = before + amount


async def tasks() -> None:
    """Twenty tasks at once."""
    await asyncio.gather(*(deposit_later(account=7, amount=1) for _ in range(20)))


with ThreadPoolExecutor(8) as pool:
    list(pool.map(deposit, [1] * 20))
asyncio.run(tasks())

print(f"20 threads' and 20 tasks' deposits make {balance}")
assert balance == 40
