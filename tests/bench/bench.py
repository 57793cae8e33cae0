"""The workloads beside their raw baselines, from Rust and from Python, as one table of ratios.

Speed is a ratio against a baseline of the same run, in turns with it. Absolute figures of a shared machine mean little.
"""

import argparse
import ctypes
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import dlock

ROOT = Path(__file__).resolve().parents[2]
RUST = ROOT / "target" / "release" / "dlock-bench"
PROCESSES = 4
ROWS = []


def row(workload, backend, language, ratio, baseline, **more):
    """Note a line of the table, and show that something happens."""
    ROWS.append((workload, backend, language, ratio, baseline, more))
    shown = "  ".join(f"{name}={value:,.0f}" if value >= 10 else f"{name}={value:.3g}" for name, value in more.items())
    ratio = f"{ratio:.3f}" if ratio is not None else "-"
    print(f"{workload:8} {backend:7} {language:9} {ratio:>8}  of {baseline:<28} {shown}", flush=True)


def raw_library(folder):
    """Compile the C baselines."""
    library = Path(folder) / "raw.so"
    source = Path(__file__).with_name("raw.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    raw = ctypes.CDLL(str(library))
    raw.flock_pairs.restype = ctypes.c_double
    return raw, library


def rust(*arguments):
    """Run one workload in Rust."""
    done = subprocess.run([RUST, *map(str, arguments)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def pairs(lock, count):
    """Take and give a lock so many times; return the seconds."""
    began = time.perf_counter()
    for _ in range(count):
        with lock:
            pass
    return time.perf_counter() - began


def alone(urls, folder, raw):
    """Workload a: one client, acquire and release."""
    path = os.path.join(folder, "raw.lock")
    for backend, url in urls.items():
        told = rust("a", url, path if backend == "file" else "")
        row(
            "a", backend, "rust", told["ratio"], "flock" if backend == "file" else "std Mutex", pairs_per_s=told["rate"]
        )
        peers = {"dlock": dlock.connect(url).lock("bench-a")}
        if backend == "file":
            import filelock

            peers["filelock"] = filelock.FileLock(os.path.join(folder, "peer.lock"))
        ratios, rates = {name: [] for name in peers}, {name: [] for name in peers}
        own = threading.Lock()
        for _ in range(11):
            for name, peer in peers.items():
                count = 500 if name == "filelock" else 10_000
                base = raw.flock_pairs(path.encode(), count) if backend == "file" else pairs(own, count)
                took = pairs(peer, count)
                ratios[name].append(base / took)
                rates[name].append(count / took)
        baseline = "flock in C" if backend == "file" else "threading.Lock"
        for name in peers:
            language = "python" if name == "dlock" else name
            row(
                "a",
                backend,
                language,
                statistics.median(ratios[name]),
                baseline,
                pairs_per_s=statistics.median(rates[name]),
            )


def contend(workers, lock_of, seconds=0.5):
    """Let threads of this process take and give for a while."""
    stop, start = threading.Event(), threading.Barrier(workers + 1)
    counts, longest, state = [0] * workers, [0.0] * workers, {"owner": None, "switches": 0, "inside": 0, "overlaps": 0}

    def work(me):
        lock, count, most = lock_of(me), 0, 0.0
        start.wait()
        while not stop.is_set():
            asked = time.perf_counter()
            with lock:
                most = max(most, time.perf_counter() - asked)
                state["overlaps"] += state["inside"]
                state["inside"] += 1
                if state["owner"] != me:
                    state["owner"] = me
                    state["switches"] += 1
                count += 1
                state["inside"] -= 1
        counts[me], longest[me] = count, most

    threads = [threading.Thread(target=work, args=(me,)) for me in range(workers)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    return {
        "rate": sum(counts) / took,
        "switches": state["switches"] / took,
        "longest_ms": max(longest) * 1e3,
        "spread": max(counts) / max(1, min(counts)),
        "overlaps": state["overlaps"],
    }


def together(urls, workload, workers):
    """Workloads b (one key) and d (a key each): threads of one process."""
    apart = workload == "d"
    for backend, url in urls.items():
        told = rust(workload, url, workers)
        more = {"grants_per_s": told["rate"], "switches_per_s": told["switches"], "longest_us": told["longest_us"]}
        row(
            f"{workload}{workers}",
            backend,
            "rust",
            told["rate"] / told["base"],
            "std Mutex",
            **more,
            spread=told["spread"],
        )
        client, ratios, runs = dlock.connect(url), [], []
        for _ in range(5):
            own = [threading.Lock() for _ in range(workers)]
            base = contend(workers, lambda me, own=own: own[me if apart else 0])
            run = contend(workers, lambda me, client=client: client.lock(f"bench-{me if apart else 0}"))
            if not apart and run["overlaps"]:
                raise SystemExit(f"{backend}: two were inside")
            ratios.append(run["rate"] / base["rate"])
            runs.append(run)
        middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        row(
            f"{workload}{workers}",
            backend,
            "python",
            statistics.median(ratios),
            "threading.Lock",
            grants_per_s=middle["rate"],
            switches_per_s=middle["switches"],
            longest_ms=max(run["longest_ms"] for run in runs),
            spread=middle["spread"],
        )


WORKER = """
import sys, time
import dlock
url, shared, me, seconds, hold, think = sys.argv[1:]
lock, end, mine, longest = dlock.connect(url).lock("bench-c"), time.monotonic() + float(seconds), [], 0.0
hold, think = int(hold) / 1e6, int(think) / 1e6
while time.monotonic() < end:
    asked = time.monotonic()
    with lock as lease:
        longest = max(longest, time.monotonic() - asked)
        mine.append(lease.fence)
        if hold: time.sleep(hold)
    if think: time.sleep(think)
open(f"{shared}.{me}", "w").write("".join(f"{fence}\\n" for fence in mine))
print('{"grants": %d, "longest_us": %d}' % (len(mine), longest * 1e6))
"""

RAW_WORKER = """
import ctypes, sys
raw = ctypes.CDLL(sys.argv[1])
text, long = ctypes.c_char_p, ctypes.c_long
raw.flock_contend.argtypes = [text, text, long, ctypes.c_double, long, long]
path, shared, me, seconds, hold, think = sys.argv[2:]
raw.flock_contend(path.encode(), shared.encode(), int(me), float(seconds), int(hold), int(think))
print("{}")
"""


def crowd(command, folder, name, hold, think, seconds=1.0):
    """Run the contenders at once; return what each told."""
    shared = os.path.join(folder, name)
    Path(shared).write_bytes(bytes(64))
    running = [
        subprocess.Popen(
            [*map(str, command), shared, str(me), str(seconds), str(hold), str(think)], stdout=subprocess.PIPE
        )
        for me in range(1, PROCESSES + 1)
    ]
    return shared, [json.loads(process.communicate()[0]) for process in running]


def switches_of(shared):
    """How often the owner changed, read off the fences."""
    grants = sorted(
        (int(fence), me) for me in range(1, PROCESSES + 1) for fence in Path(f"{shared}.{me}").read_text().split()
    )
    return sum(a[1] != b[1] for a, b in itertools.pairwise(grants))


def processes(urls, folder, library):
    """Workload c: processes on one key. Of the file backend only."""
    path = os.path.join(folder, "raw-c.lock")
    for name, hold, think in (("c", 0, 0), ("c 1ms", 1000, 1000)):
        seen = {"rust": [], "python": []}
        for _ in range(5):
            shared, _ = crowd([sys.executable, "-c", RAW_WORKER, library, path], folder, "raw", hold, think)
            raw = Path(shared).read_bytes()
            base = int.from_bytes(raw[8:16], "little")
            for language, command in (
                ("rust", [RUST, "c", urls["file"]]),
                ("python", [sys.executable, "-c", WORKER, urls["file"]]),
            ):
                shared, told = crowd(command, folder, language, hold, think)
                counts = [one["grants"] for one in told]
                seen[language].append(
                    {
                        "ratio": switches_of(shared) / max(1, base),
                        "switches_per_s": switches_of(shared),
                        "grants_per_s": sum(counts),
                        "longest_ms": max(one["longest_us"] for one in told) / 1e3,
                        "spread": max(counts) / max(1, min(counts)),
                    }
                )
        for language, runs in seen.items():
            middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            row(name, "file", language, middle.pop("ratio"), "switches of blocking flock", **middle)


def start_up():
    """Workload f: an interpreter that imports, and one that also takes its first lock, over an empty one."""
    programs = {
        "empty": "pass",
        "import": "import dlock",
        "import + first lock": "import dlock\nwith dlock.lock('bench-f'): pass",
    }
    times = {name: [] for name in programs}
    for _ in range(21):
        for name, program in programs.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-I", "-c", program], check=True)
            times[name].append((time.perf_counter() - began) * 1e3)
    empty = statistics.median(times["empty"])
    for name in list(programs)[1:]:
        took = statistics.median(times[name])
        row("f", "file", "python", None, f"{name}", ms=took, ms_over_empty=took - empty)


def main():
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "workloads", nargs="*", default=["a", "b", "c", "d", "f"], help="some of a b c d f (default: all)"
    )
    chosen = parser.parse_args().workloads
    with tempfile.TemporaryDirectory() as folder:
        raw, library = raw_library(folder)
        urls = {"memory": "memory://bench", "file": f"file://{folder}/locks"}
        for workload in chosen:
            if workload == "a":
                alone(urls, folder, raw)
            elif workload in ("b", "d"):
                for workers in (16, 64) if workload == "b" else (64,):
                    together(urls, workload, workers)
            elif workload == "c":
                processes(urls, folder, library)
            elif workload == "f":
                start_up()
            else:
                parser.error(f"there is no workload {workload!r}: choose from a b c d f")


if __name__ == "__main__":
    main()
