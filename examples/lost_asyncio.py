"""A lost lock cancels the body of an `async with` block at its current await (Python 3.11 and newer)."""

from __future__ import annotations

import asyncio

import dlock


async def main() -> None:
    """Loses a lock after 0.2 s and shows where the body stopped."""
    client = dlock.connect("memory://lost-asyncio")
    parts = 0
    try:
        async with client.lock("import", max_hold=0.2) as lease:
            while True:
                lease.check()  # all there is on Python 3.10, which only signals
                await asyncio.sleep(0.02)
                parts += 1
    except dlock.LockLost as error:
        print(f"stopped after {parts} parts: {error}")
    assert parts < 50

    async with client.lock("import", wait=1):
        print("the next task has it")


asyncio.run(main())
