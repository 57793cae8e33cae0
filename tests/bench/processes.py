"""Workload c: processes on one key."""

import itertools
import json
import statistics
import subprocess
import sys
from array import array
from pathlib import Path

import servers
from table import row

PROCESSES = 4
ROUNDS = 5
# How long a slice lasts, in seconds.
SLICE = 0.5

OF = {"file": "blocking flock", "redis": "bare hand-over"}
OF |= dict.fromkeys(("etcd", "mysql", "zookeeper"), "the bare crate")
PEERS = {"redis": ["redis-py", "python-redis-lock", "redis-py asyncio"], "zookeeper": ["kazoo"]}
WORKER = [sys.executable, Path(__file__).with_name("worker.py")]


def run(backend, url, bench):
    """Measure it."""
    calls = servers.calls(backend, url)
    for name, hold, think in (("c 0ms", 0, 0), ("c 1+1ms", 1000, 1000)):
        commands = subjects(backend, url, bench)
        seen = {who: [] for who in commands}
        for turn in range(ROUNDS):
            order = list(commands) if turn % 2 == 0 else list(commands)[::-1]
            for who in order:
                seen[who].append(crowd(commands[who], f"{bench.folder}/held", hold, think, calls))
        base = seen.pop("raw")
        for who, runs in [("raw", base), *seen.items()]:
            figures = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            figures["longest_ms"] = max(run["longest_ms"] for run in runs)
            figures["overlaps"] = sum(run["overlaps"] for run in runs)
            if who != "raw":
                by_turn = zip(runs, base, strict=True)
                key = "switches_per_s"
                figures["ratio"] = statistics.median(run[key] / max(1, bare[key]) for run, bare in by_turn)
            row(name, backend, who, figures, OF[backend] if who != "raw" else "")
    if calls:
        calls.close()


def subjects(backend, url, bench):
    """The commands of one contender, by who it is; the raw one first."""
    peers = PEERS.get(backend, []) if bench.peers else []
    if backend == "file":
        raw = [*WORKER, "flock", f"{bench.folder}/raw-c.lock", bench.library]
        return {"raw": raw, "rust": [bench.program, "c", url, "rust"], "python": [*WORKER, "python", url, "-"]}
    commands = {who: [bench.program, "c", url, who] for who in ("raw", "rust", "rust tokio 1", "rust tokio 2")}
    commands |= {who: [*WORKER, who, url, "-"] for who in ("python", "asyncio", *peers)}
    if bench.rust_peers and backend != "mysql":
        peer = {"redis": "rslock", "etcd": "etcd-client", "zookeeper": "zookeeper-client"}[backend]
        commands[peer] = [bench.rust_peers, "c", url, peer]
    if bench.go_peer and backend == "etcd":
        commands["go"] = [bench.go_peer, url]
    return commands


def crowd(command, record, hold, think, calls):
    """Let contenders run at once, and look at what they held and when."""
    records, longest, running = [Path(f"{record}-{me}") for me in range(PROCESSES)], [], []
    try:
        for path in records:
            line = map(str, [*command, path, SLICE, hold, think])
            running.append(subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for process in running:
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"a contender didn't start: {command}")
        if calls:
            calls.more()
        for process in running:
            process.stdin.write("g")
            process.stdin.flush()
        for process in running:
            told, _ = process.communicate(timeout=60)
            if process.returncode:
                raise SystemExit(f"a contender failed: {command}")
            longest.append(json.loads(told)["longest_ms"])
    finally:
        for process in running:
            process.kill()
    more = calls.more() if calls else None
    return figures(records, more) | {"longest_ms": max(longest)}


def figures(records, more):
    """What follows from the holds."""
    holds, counts = [], []
    for me, path in enumerate(records):
        times = array("Q", path.read_bytes())
        counts.append(len(times) // 2)
        holds.extend(zip(times[::2], times[1::2], itertools.repeat(me)))
    holds.sort()
    gaps, overlaps, switches = [], 0, 0
    for (_, ended, before), (begun, _, after) in itertools.pairwise(holds):
        overlaps += begun < ended
        if before != after:
            switches += 1
            gaps.append(begun - ended)
    seen = {
        "switches_per_s": switches / SLICE,
        "grants_per_s": len(holds) / SLICE,
        "handover_us": statistics.median(gaps or [0]) / 1e3,
        "least": min(counts),
        "most": max(counts),
        "overlaps": overlaps,
    }
    if more:
        seen["requests_per_switch"] = more[0] / max(1, switches)
        seen["messages_per_switch"] = more[1] / max(1, switches)
    return seen
