"""Four processes increment one counter in a file, first without a lock, then with the lock.

The demo needs no server. `make demo` builds everything and runs it. If dlock is installed, `python examples/demo.py`
runs it too.
It exits with 1 if the count with the lock is wrong, or if several runs without the lock lost no update.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import dlock

PROCESSES = 4
TIMES = 500
TRIES = 5
EXPECTED = PROCESSES * TIMES
DIGITS = 12


def increment(file: int) -> int:
    """Reads the number, adds one, writes it back: three steps, and others run between them."""
    number = int(os.pread(file, DIGITS, 0)) + 1
    time.sleep(0)  # the work that real code does between reading and writing
    os.pwrite(file, b"%0*d" % (DIGITS, number), 0)
    return number


def worker(path: str, locked: bool) -> None:
    """What each of the four processes does. Prints [[number, fence], …] when done."""
    file = os.open(path, os.O_RDWR)
    print("ready", flush=True)
    sys.stdin.readline()  # all four begin together
    seen: list[tuple[int, int]] = []
    for _ in range(TIMES):
        if locked:
            with dlock.lock("counter") as lease:
                seen.append((increment(file), lease.fence or 0))
        else:
            increment(file)
    print(json.dumps(seen))


class Count(NamedTuple):
    """How one run ended."""

    got: int
    seconds: float
    seen: list[tuple[int, int]]


def count(locked: bool) -> Count:
    """Has four new processes count in a new file, and shows how far they are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "counter.txt")
        path.write_text("0" * DIGITS)
        command = [sys.executable, __file__, "worker", str(path), "locked" if locked else "free"]
        pipe = subprocess.PIPE
        workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(PROCESSES)]
        for one in workers:
            assert one.stdout is not None
            if one.stdout.readline() != "ready\n":
                sys.exit("a counting process could not begin, see above")
        began = time.monotonic()
        for one in workers:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        while sys.stdout.isatty() and any(one.poll() is None for one in workers):
            print(f"\r   {int(path.read_text()):>5,} so far ", end="", flush=True)
            time.sleep(0.02)
        outputs = [one.communicate()[0] for one in workers]
        seconds = time.monotonic() - began
        if sys.stdout.isatty():
            print("\r" + " " * 20 + "\r", end="")
        if any(one.returncode for one in workers):
            sys.exit("a counting process failed, see above")
        seen = [(number, fence) for output in outputs for number, fence in json.loads(output)]
        return Count(int(path.read_text()), seconds, sorted(seen))


def without() -> bool:
    """The count without a lock: True once updates were lost."""
    print("1. Without a lock. Each reads the number, adds one, writes it back.")
    for _ in range(TRIES):
        got, seconds, _ = count(locked=False)
        lost = EXPECTED - got
        print(f"   expected {EXPECTED:,}   got {got:>5,}   {lost:,} updates lost   ({seconds:.2f} s)")
        if lost:
            return True
        print("   none lost this time, which was luck: again")
    return False


def within() -> bool:
    """The count with the lock: True if it is exact and every grant had a greater fencing token."""
    print('2. With the lock. The same three steps, inside `with dlock.lock("counter"):`.')
    got, seconds, seen = count(locked=True)
    verdict = "exact" if got == EXPECTED else f"{EXPECTED - got:,} UPDATES LOST"
    print(
        f"   expected {EXPECTED:,}   got {got:>5,}   {verdict}   ({seconds:.2f} s, {EXPECTED / seconds:,.0f} a second)"
    )
    fences = [fence for _, fence in seen]
    rising = all(earlier < later for earlier, later in pairwise(fences))
    print(f"   fencing tokens, first {fences[0]} to last {fences[-1]}: ", end="")
    print("each greater than the one before" if rising else "NOT RISING")
    return got == EXPECTED and rising


def main() -> int:
    """Tells the story."""
    lock = dlock.lock("counter")
    print(f"\n{PROCESSES} processes count in one file, {TIMES} times each. No server: the lock is the file")
    print(f"{lock.backend_name}\n")
    lost = without()
    print()
    exact = within()
    print()
    if not lost:
        print(f"Nothing was lost without the lock in {TRIES} tries, so this run shows nothing.")
    elif exact:
        print("Use it in a program of your own: .venv/bin/python, `import dlock`. README.md goes on from here.")
    return 0 if lost and exact else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], sys.argv[3] == "locked")
    else:
        sys.exit(main())
