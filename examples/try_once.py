"""Try once, wait with a timeout, or give up: ways to limit the wait for a lock."""

from __future__ import annotations

import time

import dlock

client = dlock.connect("memory://try-once")

with client.lock("nightly-report", label="the other worker"):
    # Now or never, as with threading.Lock.
    lock = client.lock("nightly-report")
    if lock.acquire(blocking=False):
        lock.release()
        raise AssertionError("two holders")
    print("busy, so this worker does something else")

    # A wait that ends. The deadline is for the whole wait and never starts again.
    began = time.monotonic()
    try:
        with client.lock("nightly-report", wait=0.2):
            raise AssertionError("two holders")
    except dlock.LockTimeout as error:
        print(f"gave up after {time.monotonic() - began:.1f} s: {error}")

    # Who has it?
    for contender in client.contenders("nightly-report"):
        print(f"held by {contender.label!r}, process {contender.pid}")

with client.lock("nightly-report", wait=0):
    print("free again")
