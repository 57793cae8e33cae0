"""flock(1) and the package filelock on the same file: they keep us out, we keep them out, and together all count."""

import shutil
import subprocess
import sys
import time

import dlock
import filelock
import pytest

OURS = """
import os, sys, time
import dlock
url, path, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
file = os.open(path, os.O_RDWR)
lock = dlock.connect(url).lock("k")
for _ in range(times):
    with lock:
        number = int(os.pread(file, 12, 0)) + 1
        time.sleep(0.0005)
        os.pwrite(file, b"%012d" % number, 0)
"""

FILELOCK = """
import os, sys, time
import filelock
name, path, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
file = os.open(path, os.O_RDWR)
lock = filelock.FileLock(name, poll_interval=0.001)
for _ in range(times):
    with lock:
        number = int(os.pread(file, 12, 0)) + 1
        time.sleep(0.0005)
        os.pwrite(file, b"%012d" % number, 0)
"""

FLOCK = """
times=$3
while [ "$times" -gt 0 ]; do
    flock "$1" sh -c 'read -r number < "$1"; printf %012d "$(expr "$number" + 1)" > "$1"' sh "$2" || exit 1
    times=$((times - 1))
done
"""

needs_flock = pytest.mark.skipif(shutil.which("flock") is None, reason="flock(1) is part of util-linux")


@pytest.fixture
def lock(file_url):
    """A lock whose file has been made."""
    with dlock.connect(file_url) as client:
        lock = client.lock("k")
        with lock:
            pass
        yield lock


def flock(name, *command):
    """Whether flock(1) obtained the lock without waiting."""
    return subprocess.run(["flock", "--nonblock", name, *command], check=False).returncode == 0


@needs_flock
def test_flock_is_kept_out(lock):
    assert flock(lock.backend_name, "true")
    with lock:
        assert not flock(lock.backend_name, "true")
    assert flock(lock.backend_name, "true")


@needs_flock
def test_flock_keeps_us_out_and_lets_us_in(lock):
    with subprocess.Popen(["flock", lock.backend_name, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdin.write(b"held\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"held\n"
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0.1)
        holder.stdin.close()
        assert lock.acquire(timeout=5)
    lock.release()


def test_filelock_is_kept_out(lock):
    other = filelock.FileLock(lock.backend_name)
    with lock, pytest.raises(filelock.Timeout):
        other.acquire(timeout=0.1)
    with other:
        pass


def test_filelock_keeps_us_out_and_lets_us_in(lock):
    other = filelock.FileLock(lock.backend_name)
    with other:
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0.1)
    assert lock.acquire(timeout=5)
    lock.release()


def count(file_url, name, neighbour, times, path):
    """Have three processes of ours and three of a neighbour's add to one number."""
    path.write_text(f"{0:012}")
    ours = [[sys.executable, "-c", OURS, file_url, path, str(times)]] * 3
    theirs = [[*neighbour, name, path, str(times)]] * 3
    began = time.monotonic()
    workers = [subprocess.Popen(command) for pair in zip(ours, theirs, strict=True) for command in pair]
    try:
        codes = [worker.wait(50) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert codes == [0] * 6
    return int(path.read_text()), time.monotonic() - began


@pytest.mark.parametrize(
    ("neighbour", "times"),
    [
        pytest.param([sys.executable, "-c", FILELOCK], 200, id="filelock"),
        pytest.param(["sh", "-c", FLOCK, "sh"], 100, id="flock", marks=needs_flock),
    ],
)
def test_three_of_ours_and_three_of_theirs(neighbour, times, lock, file_url, tmp_path, capsys):
    number, took = count(file_url, lock.backend_name, neighbour, times, tmp_path / "counter")
    assert number == 6 * times
    with capsys.disabled():
        print(f"\n    {number} increments by six processes in {took:.2f} s", end=" ", flush=True)
