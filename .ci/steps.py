"""Runs targets of the Makefile, each to its end, and adds up what their runners counted.

Those that compile or calculate most of their time run beside those that wait most of it, in two lanes. What a step of
the second lane says is shown when it has ended.

A step that fails without a failed test counts as one failure, and so does one that ran nothing: a sum can't look
better than what happened.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# Longer than any step takes on two cores; a step that hangs is a failure, not a silent machine.
LIMIT_SECONDS = 1500

CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
PLAIN = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")
PYTEST = re.compile(r"^(?:=+ )?(\d+ \w+(?:, \d+ \w+)*) in [\d.]+s")
# The end of a report of node:test, as its two reporters print it.
NODE = re.compile("^(?:#|\N{INFORMATION SOURCE}) (pass|fail|cancelled|skipped|todo) ([0-9]+)$")
PYTEST_PART = re.compile(r"(\d+) (\w+)")
# The lane of those that mostly keep a processor busy, in this order. They have what the other lane leaves of the
# processors. Lint is last, since it keeps cargo from the other lane.
BUSY = ("test-c", "test-install", "test-examples", "lint")
# What these leave to `make test-full`; tests/README.md says why.
LEFT_TO_FULL = {
    "test-rust": "the scenarios of etcd on etcd 3.5",
    "test-behaviour": "every case in every language on file and etcd, etcd on 3.5, Rust without the features of tests",
    "test-soak": "Rust's workers without the features of tests",
}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Count:
    """What one step's runner counted."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""
    commands: frozenset[str] = frozenset()
    plain: tuple[int, int, int] = (0, 0, 0)
    plain_before: list[tuple[int, int, int]] = field(default_factory=list)

    def read(self, line: str) -> None:
        """Takes one line of output into the count."""
        line = COLOUR.sub("", line).rstrip()
        if match := CARGO.match(line):  # one a test binary
            self.add(*(int(part) for part in match.groups()))
        elif line in self.commands:  # make says what it runs next
            self.plain_before.append(self.plain)
            self.plain = (0, 0, 0)
        elif match := PLAIN.match(line):  # the last one of a command is its sum
            self.plain = (int(match[1]), int(match[2]), int(match[3] or 0))
        elif match := NODE.match(line):  # one a line
            what, number = match[1], int(match[2])
            place = 0 if what == "pass" else 1 if what in {"fail", "cancelled"} else 2
            self.add(*(number if at == place else 0 for at in range(3)))
        elif match := PYTEST.match(line):
            parts = {word: int(number) for number, word in PYTEST_PART.findall(match[1])}
            failed = parts.get("failed", 0) + parts.get("error", 0) + parts.get("errors", 0)
            self.add(parts.get("passed", 0) + parts.get("xfailed", 0), failed, parts.get("skipped", 0))

    def add(self, passed: int, failed: int, skipped: int) -> None:
        """Adds to the count."""
        self.passed += passed
        self.failed += failed
        self.skipped += skipped

    def close(self, code: int) -> None:
        """Settles the count once the step has ended."""
        if self.passed + self.failed == 0:
            for plain in [*self.plain_before, self.plain]:
                self.add(*plain)
        if code != 0 and self.failed == 0:
            self.failed, self.note = 1, self.note or f"ended with {code}"
        elif self.passed + self.failed == 0:
            self.failed, self.note = 1, "ran nothing"


def run(name: str, show: Callable[[str], None], running: set[int], *, nice: bool) -> Count:
    """Runs one step and gives each line of its output to `show`."""
    make = ["make", "--no-print-directory", "BUILT_BEFORE=1", name]
    dry = subprocess.run([*make, "--dry-run"], capture_output=True, text=True, check=False)
    count = Count(name, commands=frozenset(dry.stdout.splitlines()))
    show(f"\n── {name} ──\n")
    began = time.monotonic()
    step = subprocess.Popen(
        ["nice", "-n", "10", *make] if nice else make,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    running.add(step.pid)

    def give_up() -> None:
        count.note = f"stopped after {LIMIT_SECONDS} s"
        os.killpg(step.pid, signal.SIGKILL)

    limit = threading.Timer(LIMIT_SECONDS, give_up)
    limit.daemon = True
    limit.start()
    assert step.stdout is not None
    try:
        for line in step.stdout:
            show(line)
            count.read(line)
        code = step.wait()
    finally:
        running.discard(step.pid)
        limit.cancel()
    count.close(code)
    count.seconds = time.monotonic() - began
    return count


def run_all(names: list[str]) -> list[Count]:
    """Runs all in two lanes. The counts are in the order of the names."""
    counts: dict[str, Count] = {}
    running: set[int] = set()
    one_at_a_time = threading.Lock()

    def at_once(text: str) -> None:
        with one_at_a_time:
            sys.stdout.write(text)
            sys.stdout.flush()

    def busy() -> None:
        for name in [name for name in BUSY if name in names]:
            said: list[str] = []
            counts[name] = run(name, said.append, running, nice=True)
            at_once("".join(said))

    beside = threading.Thread(target=busy, daemon=True)
    try:
        beside.start()
        for name in [name for name in names if name not in BUSY]:
            counts[name] = run(name, at_once, running, nice=False)
        beside.join()
    except BaseException:
        for pid in list(running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
        raise
    return [counts.get(name) or Count(name, failed=1, note="didn't run") for name in names]


def main(names: list[str]) -> int:
    """Runs all, prints the table and the sum."""
    began = time.monotonic()
    counts = run_all(names)
    total = Count("total", seconds=time.monotonic() - began)
    for count in counts:
        total.add(count.passed, count.failed, count.skipped)
    print(f"\n{'step':<16}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    full = bool(os.environ.get("FULL"))
    for count in [*counts, total]:
        row = f"{count.name:<16}{count.passed:>8}{count.failed:>8}{count.skipped:>9}{count.seconds:>9.0f}"
        print(f"{row}  {count.note}".rstrip())
    left = {} if full else {name: what for name, what in LEFT_TO_FULL.items() if name in names}
    if left:
        print("\nonly `make test-full` runs:")
        for name, what in left.items():
            print(f"  {name:<14}  {what}")
    skipped = f", {total.skipped} skipped" if total.skipped else ""
    print(f"\n{total.passed} passed, {total.failed} failed{skipped}", flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
