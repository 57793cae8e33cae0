"""Workload f: a program that loads dlock, and one that also takes its first lock, over an empty one."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import others
from table import row

ROOT = Path(__file__).resolve().parents[2]

PYTHON = {
    "empty": "pass",
    "import": "import dlock",
    "import + first lock": "import dlock\nwith dlock.lock('bench-f'): pass",
}
NODE = {
    "empty": "",
    "import": "import 'dlock-rs'",
    "import + first lock": "import { request } from 'dlock-rs'\nawait request('bench-f', () => {})",
}


def run(folder, target, node):
    """Measure it."""
    languages = {
        "python": {name: [sys.executable, "-I", "-c", program] for name, program in PYTHON.items()},
        "node": {name: [node, "--input-type=module", "-e", program] for name, program in NODE.items()},
        "c": c(folder, target),
    }
    times = {(who, name): [] for who, programs in languages.items() for name in programs}
    for _ in range(21):
        for who, name in times:
            began = time.perf_counter()
            # Where a program of Node's finds the package.
            subprocess.run(languages[who][name], check=True, cwd=ROOT)
            times[who, name].append((time.perf_counter() - began) * 1e3)
    for who, name in times:
        if name != "empty":
            took, empty = statistics.median(times[who, name]), statistics.median(times[who, "empty"])
            row("f", "file", who, {"ms": took, "ms_over_empty": took - empty}, name)


def c(folder, target):
    """The programs in C."""
    source = Path(__file__).with_name("c") / "start_up.c"
    linked = others.c(folder, target, "start_up", source)
    empty = Path(folder, "empty")
    subprocess.run(["cc", "-O2", "-DEMPTY", "-o", empty, source], check=True)
    return {"empty": [empty], "linked": [linked], "linked + first lock": [linked, "acquire"]}
