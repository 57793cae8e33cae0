"""Workload a: one client, acquire and release."""

import asyncio
import statistics
import threading
import time

import dlock
import others
import peers
import raw
import servers
from table import row

ROUNDS = 11
# About how long a slice lasts, in seconds.
SLICE = 0.06

OF = {
    "memory": "threading.Lock",
    "file": "flock in C",
    "redis": "the two commands in C",
    "etcd": "the two calls in Rust",
    "mysql": "the two calls in Rust",
    "zookeeper": "the calls in Rust",
}
OF_RUST = OF | {"memory": "std Mutex", "file": "flock", "redis": "the two calls"}
OF_OTHERS = {"c": OF | {"memory": "pthread_mutex_t"}}
OF_NODE = {"memory": "async-mutex", "redis": "the two calls by ioredis"}


def run(backend, url, bench, shown=None):
    """Measure it; `shown` is what the table calls the backend."""
    shown = shown or backend
    for program in bench.programs(backend):
        for who, figures in bench.rust(program, "a", url).items():
            row("a", shown, who, figures, OF_RUST[backend])
    base, close = baseline(backend, url, bench)
    for who, command in bench.others.items():

        def slices(count, command=command):
            return bench.told(command, "a", url, count)["seconds"]

        # Without a baseline of its own language, it has that of another process.
        figures = beside(base, slices) if servers.has_crate(backend) else bench.told(command, "a", url)
        row("a", shown, who, figures, OF_OTHERS[who][backend])
    for who, lock in blocking(backend, url, bench).items():
        row("a", shown, who, beside(base, lambda count, lock=lock: pairs(lock, count)), OF[backend])
    loop = asyncio.new_event_loop()
    for who, lock in awaiting(backend, url, bench).items():
        figures = beside(base, lambda count, lock=lock: loop.run_until_complete(awaited_pairs(lock, count)))
        row("a", shown, who, figures, OF[backend])
    loop.close()
    with others.node(bench.node, url) as ask:

        def slices(what):
            return lambda count: ask(what, count)

        if backend in OF_NODE:
            row("a", shown, "node", beside(slices("a-raw"), slices("a")), OF_NODE[backend])
        if backend != "memory":
            row("a", shown, "node", beside(base, slices("a")), OF[backend])
    close()


def baseline(backend, url, bench):
    """What gives the seconds of so many raw pairs, and what ends it."""
    if backend == "redis":
        pair = raw.Pair(bench.raw, url)
        return pair.pairs, pair.close
    if servers.has_crate(backend):
        return (lambda count: bench.rust(bench.program, "a-raw", url, count)["seconds"]), lambda: None
    if backend == "file":
        path = f"{bench.folder}/raw.lock".encode()
        return (lambda count: bench.raw.flock_pairs(path, count)), lambda: None
    own = threading.Lock()
    return (lambda count: pairs(own, count)), lambda: None


def blocking(backend, url, bench):
    """Locks for `with`, by whose they are."""
    locks = {"python": dlock.connect(url).lock("bench-a")}
    if backend == "file":
        import filelock

        locks["filelock"] = filelock.FileLock(f"{bench.folder}/peer.lock")
    if bench.peers:
        locks |= {who: make("peer-a") for who, make in peers.blocking(url).items()}
    return locks


def awaiting(backend, url, bench):
    """Locks for `async with`."""
    locks = {"asyncio": dlock.connect(url).lock("bench-a")}
    if bench.peers:
        locks |= {who: make("peer-a") for who, make in peers.awaiting(url).items()}
    return locks


def pairs(lock, count):
    """Take and give so many times; return the seconds."""
    began = time.perf_counter()
    for _ in range(count):
        with lock:
            pass
    return time.perf_counter() - began


async def awaited_pairs(lock, count):
    """The same in a task."""
    began = time.perf_counter()
    for _ in range(count):
        async with lock:
            pass
    return time.perf_counter() - began


def beside(base, subject):
    """Slices of both in turns; which of them is first changes."""
    enough_base, enough_subject = enough(base), enough(subject)
    ratios, rates, bases = [], [], []
    for turn in range(ROUNDS):
        early = enough_base / base(enough_base) if turn % 2 == 0 else None
        rate = enough_subject / subject(enough_subject)
        bare = early or enough_base / base(enough_base)
        ratios.append(rate / bare)
        rates.append(rate)
        bases.append(bare)
    middle = statistics.median
    return {"ratio": middle(ratios), "pairs_per_s": middle(rates), "base_per_s": middle(bases)}


def enough(subject):
    """How many fill a slice."""
    count = 4
    while (took := subject(count)) < SLICE / 8:
        count *= 2
    return max(4, int(count * SLICE / took))
