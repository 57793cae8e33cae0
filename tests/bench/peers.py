"""Other locks for the same backends, installed into a folder of their own; those that can't be are left out."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from table import note

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "target" / "bench-peers"
GO = FOLDER / "go" / "mutex"
RUST = FOLDER / "release" / "dlock-bench-peers"


def install():
    """Install what is missing; return the program of the Rust peers, if there is one."""
    wanted, have = HERE / "peers" / "requirements.txt", FOLDER / "python"
    stamp = have / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade"]
        if attempt("the Python peers", [*pip, "--target", have, "-r", wanted]):
            stamp.write_text(wanted.read_text())
    use()
    cargo = ["cargo", "build", "-q", "--release", "--manifest-path", HERE / "peers" / "Cargo.toml"]
    built = attempt("the Rust peers", [*cargo, "--target-dir", FOLDER])
    return RUST if built else None


def go():
    """Build Go's mutex of etcd; return the program, if there is one."""
    built = attempt("Go's mutex", ["go", "build", "-C", HERE / "peers" / "go", "-buildvcs=false", "-o", GO, "."])
    return GO if built else None


def attempt(what, command):
    """Run it, and say so when it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PIP_TARGET"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=clean)
    except FileNotFoundError:
        note(f"{what} can't be built without {command[0]}")
        return False
    if done.returncode:
        note(f"{what} can't be had: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return done.returncode == 0


def use():
    """Have what was installed found by import."""
    sys.path.append(str(FOLDER / "python"))


def blocking(url):
    """The peers that block: by name, what makes a lock of a key."""
    place, makers = urlsplit(url), {}
    if place.scheme == "zookeeper":
        from kazoo.client import KazooClient

        client = KazooClient(place.netloc)
        client.start()
        return {"kazoo": lambda key: client.Lock(f"/peers/{key}")}
    if place.scheme != "redis":
        return {}
    try:
        import redis

        client = redis.Redis.from_url(url)
        makers["redis-py"] = lambda key: client.lock(key, timeout=30)
        import redis_lock

        makers["python-redis-lock"] = lambda key: redis_lock.Lock(client, key, expire=30)
    except ImportError as missing:
        note(f"left out: {missing}")
    return makers


def awaiting(url):
    """The peers for asyncio, in the same way. Called within the loop."""
    if urlsplit(url).scheme != "redis":
        return {}
    try:
        import redis.asyncio
    except ImportError:
        return {}
    client = redis.asyncio.Redis.from_url(url)
    return {"redis-py asyncio": lambda key: client.lock(key, timeout=30)}
