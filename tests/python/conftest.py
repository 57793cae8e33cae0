"""What the tests share: a client of each backend, and programs run in processes of their own."""

import os
import subprocess
import sys
import textwrap
import uuid

import dlock
import pytest


def is_free(client, key, wait=0):
    """Whether the lock can be had; it is left free."""
    lock = client.lock(key, wait=wait)
    obtained = lock.acquire()
    if obtained:
        lock.release()
    return obtained


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    """The URL of a backend nobody else uses."""
    return f"memory://{uuid.uuid4().hex}" if request.param == "memory" else f"file://{tmp_path}"


@pytest.fixture
def client(url):
    """A client of a backend nobody else uses."""
    with dlock.connect(url) as client:
        yield client


@pytest.fixture
def file_url(tmp_path):
    """The URL of a lock directory nobody else uses."""
    return f"file://{tmp_path}"


@pytest.fixture
def run(tmp_path):
    """Run a program of its own; its output is its answer."""

    def run(code, *arguments, timeout=50, check=True, **environment):
        program = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DLOCK_")}
        done = subprocess.run(
            program,
            env=inherited | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run
