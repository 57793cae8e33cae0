"""Several processes on one lock: what they count is exact, fences only rise, and a killed holder stops nobody."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid

import dlock
import pytest

PROCESSES, TASKS, TIMES = 4, 8, 250

# Reads the number, adds one, writes it back: three steps, between which another one's would get lost.
INCREMENT = """
def increment(file):
    number = int(os.pread(file, 12, 0)) + 1
    os.pwrite(file, b"%012d" % number, 0)
    return number

"""

THREADS = """
import json, os, sys, threading
import dlock
key, path, tasks, times = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
file, seen = os.open(path, os.O_RDWR), []
{increment}
def work():
    for _ in range(times):
        with dlock.lock(key) as lease:
            seen.append((increment(file), lease.fence))

print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=work) for _ in range(tasks)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(seen))
"""

ASYNCIO = """
import asyncio, json, os, sys
import dlock
key, path, tasks, times = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
file, seen = os.open(path, os.O_RDWR), []
{increment}
async def work():
    for _ in range(times):
        async with dlock.lock(key) as lease:
            number = int(os.pread(file, 12, 0)) + 1
            await asyncio.sleep(0)
            os.pwrite(file, b"%012d" % number, 0)
            seen.append((number, lease.fence))

async def main():
    await asyncio.gather(*(work() for _ in range(tasks)))

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
print(json.dumps(seen))
"""

# Holds the lock, perhaps with the child of a fork, until it is killed.
HOLDER = """
import os, signal, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import dlock
lock = dlock.connect(sys.argv[1]).lock("k")
with lock:
    if sys.argv[2] == "forked":
        child = os.fork()
        if child == 0:
            signal.pause()
        print(child, flush=True)
    print("held", flush=True)
    signal.pause()
"""

WAITER = {
    "threads": """
import sys, time
import dlock
lock = dlock.connect(sys.argv[1]).lock("k")
print("busy" if not lock.acquire(blocking=False) else "free", flush=True)
with lock:
    print(time.clock_gettime_ns(time.CLOCK_MONOTONIC), flush=True)
""",
    "asyncio": """
import asyncio, sys, time
import dlock

async def main():
    lock = dlock.connect(sys.argv[1]).lock("k")
    print("busy" if not await lock.aacquire(blocking=False) else "free", flush=True)
    async with lock:
        print(time.clock_gettime_ns(time.CLOCK_MONOTONIC), flush=True)

asyncio.run(main())
""",
}


@pytest.fixture
def start(tmp_path):
    """Start a program of its own, which is killed at the end."""
    started = []
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DLOCK_")}

    def start(code, *arguments):
        command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=inherited, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def say(capsys):
    """Show a figure that no test judges."""

    def say(text):
        with capsys.disabled():
            print(f"\n    {text}", end=" ", flush=True)

    return say


@pytest.mark.parametrize("code", [THREADS, ASYNCIO], ids=["threads", "asyncio"])
def test_nothing_configured_and_every_increment_counts(code, start, say, tmp_path):
    """Four processes of eight threads or tasks, no configuration: 8,000 increments, exact, with rising fences."""
    key = f"dlock-test-{uuid.uuid4().hex}"
    path = tmp_path / "counter"
    path.write_text("0" * 12)
    code = code.format(increment=INCREMENT)
    try:
        workers = [start(code, key, path, TASKS, TIMES) for _ in range(PROCESSES)]
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * PROCESSES
        began = time.monotonic()
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        outputs = [worker.communicate(timeout=50)[0] for worker in workers]
        took = time.monotonic() - began
    finally:
        # Nobody else knows the name, so its file may go.
        with contextlib.suppress(OSError):
            os.unlink(dlock.connect("file://").lock(key).backend_name)
    assert [worker.returncode for worker in workers] == [0] * PROCESSES
    total = PROCESSES * TASKS * TIMES
    assert int(path.read_text()) == total
    seen = sorted(pair for output in outputs for pair in json.loads(output))
    assert [number for number, _ in seen] == list(range(1, total + 1))
    fences = [fence for _, fence in seen]
    assert all(earlier < later for earlier, later in itertools.pairwise(fences))
    say(f"{total} increments in {took:.2f} s")


@pytest.mark.parametrize("family", ["alone", "forked"])
@pytest.mark.parametrize("way", ["threads", "asyncio"])
def test_a_killed_holder_is_followed_at_once(way, family, start, say, file_url):
    """The kernel frees what a killed process held, also while a child that it forked lives on."""
    holder = start(HOLDER, file_url, family)
    child = int(holder.stdout.readline()) if family == "forked" else None
    try:
        assert holder.stdout.readline() == "held\n"
        waiter = start(WAITER[way], file_url)
        assert waiter.stdout.readline() == "busy\n"
        time.sleep(0.3)
        killed = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        holder.kill()
        entered = int(waiter.stdout.readline())
        if child is not None:
            os.kill(child, 0)
    finally:
        if child is not None:
            os.kill(child, signal.SIGKILL)
    late = (entered - killed) / 1e6
    say(f"entered {late:.1f} ms after the kill")
    assert 0 < late < 5000
    assert waiter.wait(10) == 0
