"""One contender of workload c. Arguments: who, URL, library of baselines, record, seconds, hold and think in µs."""

import asyncio
import ctypes
import json
import sys
import time
from array import array
from pathlib import Path

WHO, URL, LIBRARY, RECORD, SECONDS, HOLD, THINK = sys.argv[1:]
SECONDS, HOLD, THINK = float(SECONDS), int(HOLD) / 1e6, int(THINK) / 1e6
held = array("Q")
longest = 0


def ready():
    """Wait until all have started; return when to end."""
    print("ready", flush=True)
    sys.stdin.read(1)
    return time.monotonic() + SECONDS


def inside(asked):
    """Note a hold, for as long as it is to be."""
    global longest
    begun = time.monotonic_ns()
    longest = max(longest, begun - asked)
    if HOLD:
        time.sleep(HOLD)
    held.append(begun)
    held.append(time.monotonic_ns())


def block(lock):
    """Take and give."""
    with lock:
        pass
    end = ready()
    while time.monotonic() < end:
        asked = time.monotonic_ns()
        with lock:
            inside(asked)
        if THINK:
            time.sleep(THINK)


async def wait(make):
    """Take and give in a task. Nothing else runs in this loop, so it may sleep as the others do."""
    lock = make()
    async with lock:
        pass
    end = ready()
    while time.monotonic() < end:
        asked = time.monotonic_ns()
        async with lock:
            inside(asked)
        if THINK:
            time.sleep(THINK)


def flock():
    """Take and give in C."""
    raw = ctypes.CDLL(LIBRARY)
    raw.flock_contend.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_double, ctypes.c_long, ctypes.c_long]
    raw.flock_contend.restype = ctypes.c_double
    ready()
    return raw.flock_contend(URL.encode(), RECORD.encode(), SECONDS, round(HOLD * 1e6), round(THINK * 1e6))


def main():
    """Run as who was asked for."""
    if WHO == "flock":
        print(json.dumps({"longest_ms": flock()}))
        return
    if WHO in ("python", "asyncio"):
        import dlock

        lock = dlock.connect(URL).lock("bench-c")
        block(lock) if WHO == "python" else asyncio.run(wait(lambda: lock))
    else:
        import peers

        peers.use()
        if WHO.endswith("asyncio"):
            asyncio.run(wait(lambda: peers.awaiting(URL)[WHO]("peer-c")))
        else:
            block(peers.blocking(URL)[WHO]("peer-c"))
    Path(RECORD).write_bytes(held.tobytes())
    print(json.dumps({"longest_ms": longest / 1e6}))


main()
