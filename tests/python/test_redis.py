"""A real Redis: configured in each way, and shared with redis-py's own lock."""

import os
import signal
import statistics
import subprocess
import sys
import time
from itertools import pairwise

import dlock
import pytest
import redis

DEFAULT = """
import dlock, redis, sys
with dlock.lock("configured") as lease:
    print(dlock.connect().backend, redis.Redis.from_url(sys.argv[1]).get("configured").decode() == lease.token)
"""


@pytest.fixture
def server(redis_url):
    """The database as redis-py sees it."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as server:
        yield server


def test_configured_by_the_environment(run, redis_address):
    done = run(DEFAULT, f"redis://{redis_address}/0", DLOCK_REDIS_ENABLED="true", DLOCK_REDIS_ADDRS=redis_address)
    assert done.stdout.split() == ["redis", "True"]


def test_configured_by_yaml(run, redis_address, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(
        f'redis:\n  enabled: true\n  addrs: ["{redis_address}"]\n  db: 3\nother: {{}}\n'
    )
    assert run(DEFAULT, f"redis://{redis_address}/3").stdout.split() == ["redis", "True"]


def test_configured_by_a_url(run, redis_url):
    assert run(DEFAULT, redis_url, DLOCK_URL=redis_url).stdout.split() == ["redis", "True"]


def test_configured_by_arguments(redis_address, server):
    with (
        dlock.connect("redis", addrs=[redis_address], db=server.get_connection_kwargs()["db"], prefix="p:") as client,
        client.lock("k") as lease,
    ):
        assert server.get("p:k") == lease.token
        assert 0 < server.pttl("p:k") <= 30_000


def test_a_lock_of_redis_py_keeps_us_out_and_lets_us_in(redis_url, server):
    theirs, ours = server.lock("k", timeout=30), dlock.connect(redis_url).lock("k")
    assert theirs.acquire(blocking=False)
    assert not ours.acquire(blocking=False)
    theirs.release()
    with ours:
        assert not theirs.acquire(blocking=False)
    assert theirs.acquire(blocking=False)


def latencies(redis_url, server, end):
    """How long after the end of a foreign lock ours is entered, in milliseconds."""
    lock, times = dlock.connect(redis_url).lock("k", wait=5), []
    for _ in range(15):
        over = end(server)
        with lock:
            times.append((time.monotonic() - over()) * 1000)
    return times


def test_entered_soon_after_a_foreign_release(redis_url, server, capsys):
    import threading

    def end(server):
        theirs, moment = server.lock("k", timeout=30), []
        theirs.acquire()

        def release():
            time.sleep(0.05)
            moment.append(time.monotonic())
            theirs.local.token = token
            theirs.release()

        token = theirs.local.token
        thread = threading.Thread(target=release)
        thread.start()
        return lambda: thread.join() or moment[0]

    times = latencies(redis_url, server, end)
    with capsys.disabled():
        print(f"\n    entered {statistics.median(times):.1f} ms (median) after a foreign release", end=" ", flush=True)
    assert statistics.median(times) < 500


def test_entered_soon_after_a_foreign_expiry(redis_url, server, capsys):
    def end(server):
        assert server.lock("k", timeout=0.1).acquire()
        over = time.monotonic() + 0.1
        return lambda: over

    times = latencies(redis_url, server, end)
    with capsys.disabled():
        print(f"\n    entered {statistics.median(times):.1f} ms (median) after a foreign expiry", end=" ", flush=True)
    assert statistics.median(times) < 500


OURS = """
import sys, time, dlock
url, name, until = sys.argv[1], sys.argv[2], float(sys.argv[3])
lock = dlock.connect(url).lock("k", ttl=5)
while time.time() < until:
    with lock as lease:
        entered = time.monotonic_ns()
        time.sleep(0.01)
        lease.check()
        left = time.monotonic_ns()
    print(name, entered, left, lease.fence, flush=True)
"""

THEIRS = """
import sys, time, redis
url, name, until = sys.argv[1], sys.argv[2], float(sys.argv[3])
# Each at its own pace: those that begin together and look in step are as one.
lock = redis.Redis.from_url(url).lock("k", timeout=5, sleep=0.04 + 0.007 * int(name[-1]))
while time.time() < until:
    if lock.acquire(blocking_timeout=1):
        entered = time.monotonic_ns()
        time.sleep(0.01)
        left = time.monotonic_ns()
        lock.release()
        print(name, entered, left, 0, flush=True)
"""


def test_four_of_ours_and_four_of_redis_py(redis_url, capsys):
    until = str(time.time() + 8)
    programs = [(OURS, f"ours{n}") for n in range(4)] + [(THEIRS, f"theirs{n}") for n in range(4)]
    workers = [
        subprocess.Popen([sys.executable, "-c", code, redis_url, name, until], stdout=subprocess.PIPE, text=True)
        for code, name in programs
    ]
    try:
        lines = [line for worker in workers for line in worker.communicate(timeout=50)[0].splitlines()]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * 8
    held = sorted((int(entered), int(left), name, int(fence)) for name, entered, left, fence in map(str.split, lines))
    assert all(before[1] <= after[0] for before, after in pairwise(held)), "two were inside at once"
    fences = [fence for *_, fence in held if fence]
    assert fences == sorted(set(fences))
    counts = {name: sum(1 for hold in held if hold[2] == name) for _, name in programs}
    with capsys.disabled():
        print(f"\n    entered in 8 s: {counts}", end=" ", flush=True)
    assert all(counts[f"ours{n}"] for n in range(4))
    assert sum(counts[f"theirs{n}"] for n in range(4)) >= 8


HOLDER = """
import sys, time, dlock
lock = dlock.connect(sys.argv[1]).lock("k", ttl=1)
lock.acquire()
print(lock.lease.fence, flush=True)
for line in sys.stdin:
    valid = lock.lease.valid_for()
    try:
        lock.lease.check()
        checked = "held"
    except dlock.LockLost:
        checked = "lost"
    try:
        lock.release()
        released = "released"
    except dlock.LockLost:
        released = "lost"
    print(valid, checked, released, flush=True)
"""


@pytest.fixture
def holder(redis_url):
    """Another process, which holds the lock with a ttl of 1 s; and the fence it has."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, redis_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.fence = int(process.stdout.readline())
        yield process
        process.kill()


def test_a_killed_holder_is_succeeded(redis_url, holder, capsys):
    lock = dlock.connect(redis_url).lock("k", wait=10)
    os.kill(holder.pid, signal.SIGKILL)
    killed = time.monotonic()
    with lock as lease:
        took = time.monotonic() - killed
        assert lease.fence > holder.fence
    with capsys.disabled():
        print(f"\n    entered {took:.2f} s after the kill, ttl 1 s", end=" ", flush=True)
    assert took < 5


def test_a_stopped_holder_knows_that_it_lost(redis_url, holder, server):
    os.kill(holder.pid, signal.SIGSTOP)
    with dlock.connect(redis_url).lock("k", wait=10) as lease:
        os.kill(holder.pid, signal.SIGCONT)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline().split() == ["0.0", "lost", "lost"]
        assert server.get("k") == lease.token
        assert lease.fence > holder.fence
        lease.check()
