"""Workloads b, many workers of one process on one key, and d, a key each."""

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

ROUNDS = 5
# How long a slice lasts, in seconds.
SLICE = 0.4

OF = {"b": "a queue over the two calls", "d": "one connection shared"}
OF_OTHERS = {"c": "pthread_mutex_t"}
OF_NODE = {"b": "async-mutex over ioredis", "d": "one connection of ioredis"}


def run(backend, url, bench, workload, workers):
    """Measure it."""
    name, apart, remote = f"{workload}{workers}", workload == "d", servers.is_remote(backend)
    for program in bench.programs(backend):
        for who, figures in bench.rust(program, workload, url, workers).items():
            row(name, backend, who, figures, OF[workload] if remote else "std Mutex")
    calls = servers.calls(backend, url)
    for who, command in bench.others.items():

        def slices(what, command=command):
            return lambda: bench.told(command, what, url, workers)

        rust = servers.has_crate(backend) or (remote and apart)
        bare = in_rust(url, bench, workload, workers) if rust else slices(f"{workload}-raw")
        row(name, backend, who, beside(bare, slices(workload), calls), OF[workload] if remote else OF_OTHERS[who])
    with others.node(bench.node, url) as ask:
        bare, ours = (lambda what=what: ask(what, workers) for what in (f"{workload}-raw", workload))
        of = OF_NODE[workload] if remote else "async-mutex"
        if servers.has_crate(backend):
            bare, of = in_rust(url, bench, workload, workers), OF[workload]
        row(name, backend, "node", beside(bare, ours, calls), of)
    base, close = baseline(backend, url, bench, workload, workers)
    for who, slices in subjects(backend, url, bench, workers, apart).items():
        row(name, backend, who, beside(base, slices, calls), OF[workload] if remote else "threading.Lock")
    close()
    if calls:
        calls.close()


def own(workers, apart):
    """The language's own lock."""
    locks = [threading.Lock() for _ in range(workers)]
    return lambda: contend(workers, lambda me: locks[me if apart else 0], apart)


def in_rust(url, bench, workload, workers):
    """The two calls behind a queue of threads, or of many over one connection; in a process of its own."""
    return lambda: bench.rust(bench.program, f"{workload}-raw", url, workers)


def baseline(backend, url, bench, workload, workers):
    """The language's own lock, or the two calls: behind a queue of threads, or over one connection."""
    apart = workload == "d"
    if not servers.is_remote(backend):
        return own(workers, apart), lambda: None
    if apart or servers.has_crate(backend):
        return in_rust(url, bench, workload, workers), lambda: None
    pair = raw.Pair(bench.raw, url)
    queue = raw.Queue(pair)
    return (lambda: contend(workers, lambda me: queue, apart)), pair.close


def subjects(backend, url, bench, workers, apart):
    """What runs one slice, by whose locks they are."""
    client = dlock.connect(url)
    blocking, awaiting = {"python": client.lock}, {"asyncio": client.lock} if servers.is_remote(backend) else {}
    if bench.peers:
        blocking |= peers.blocking(url)
        awaiting |= peers.awaiting(url)

    def key(me):
        return f"bench-{me if apart else 0}"

    def threads(make):
        return lambda: contend(workers, lambda me: make(key(me)), apart)

    loop = asyncio.new_event_loop()

    def tasks(make):
        return lambda: loop.run_until_complete(contend_in_loop(workers, lambda me: make(key(me)), apart))

    return {who: threads(make) for who, make in blocking.items()} | {who: tasks(make) for who, make in awaiting.items()}


class Tally:
    """What workers have done."""

    def __init__(self, workers, apart):
        self.counts, self.longest = [0] * workers, [0.0] * workers
        self.apart, self.owner, self.switches, self.inside, self.overlaps = apart, None, 0, 0, 0

    def visit(self, me, asked):
        """A worker has got the lock for which it asked then, and is inside during this call."""
        waited = time.perf_counter() - asked
        if waited > self.longest[me]:
            self.longest[me] = waited
        self.counts[me] += 1
        if self.apart:
            return
        self.overlaps += self.inside
        self.inside += 1
        if self.owner != me:
            self.owner = me
            self.switches += 1
        self.inside -= 1

    def seen(self, took):
        """The figures."""
        return {
            "grants_per_s": sum(self.counts) / took,
            "switches_per_s": self.switches / took,
            "switched": self.switches,
            "longest_ms": max(self.longest) * 1e3,
            "least": min(self.counts),
            "most": max(self.counts),
            "overlaps": self.overlaps,
        }


def contend(workers, lock_of, apart):
    """One slice of threads."""
    tally, start = Tally(workers, apart), threading.Barrier(workers + 1)

    def work(me):
        lock = lock_of(me)
        start.wait()
        while time.perf_counter() < end:
            asked = time.perf_counter()
            with lock:
                tally.visit(me, asked)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(workers)]
    for thread in threads:
        thread.start()
    # All are about to wait: what is left of their start is not counted.
    began = time.perf_counter()
    end = began + SLICE
    start.wait()
    for thread in threads:
        thread.join()
    return tally.seen(time.perf_counter() - began)


async def contend_in_loop(workers, lock_of, apart):
    """One slice of tasks."""
    tally, began = Tally(workers, apart), time.perf_counter()
    end = began + SLICE

    async def work(me):
        lock = lock_of(me)
        while time.perf_counter() < end:
            asked = time.perf_counter()
            async with lock:
                tally.visit(me, asked)

    await asyncio.gather(*(work(me) for me in range(workers)))
    return tally.seen(time.perf_counter() - began)


def beside(base, subject, calls):
    """Slices of both in turns; which of them is first changes."""
    runs, bases, ratios, requests, messages = [], [], [], 0, 0
    for turn in range(ROUNDS):
        early = base() if turn % 2 == 0 else None
        if calls:
            calls.more()
        seen = subject()
        if calls:
            more = calls.more()
            requests, messages = requests + more[0], messages + more[1]
        bare = early or base()
        runs.append(seen)
        # On a server's key it is changes of owner that count: who takes it again and again starves the others.
        of = "switches_per_s" if calls and seen["switched"] else "grants_per_s"
        bases.append(bare[of])
        ratios.append(seen[of] / bare[of])
    figures = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    del figures["switched"]
    figures["ratio"], figures["base_per_s"] = statistics.median(ratios), statistics.median(bases)
    figures["longest_ms"] = max(run["longest_ms"] for run in runs)
    figures["overlaps"] = sum(run["overlaps"] for run in runs)
    switched = sum(run["switched"] for run in runs)
    if not switched:
        del figures["switches_per_s"], figures["overlaps"]
    elif calls:
        figures["requests_per_switch"], figures["messages_per_switch"] = requests / switched, messages / switched
    return figures
