"""Workload f: an interpreter that imports, and one that also takes its first lock, over an empty one."""

import statistics
import subprocess
import sys
import time

from table import row

PROGRAMS = {
    "empty": "pass",
    "import": "import dlock",
    "import + first lock": "import dlock\nwith dlock.lock('bench-f'): pass",
}


def run():
    """Measure it."""
    times = {name: [] for name in PROGRAMS}
    for _ in range(21):
        for name, program in PROGRAMS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-I", "-c", program], check=True)
            times[name].append((time.perf_counter() - began) * 1e3)
    empty = statistics.median(times["empty"])
    for name in list(PROGRAMS)[1:]:
        took = statistics.median(times[name])
        row("f", "file", "python", {"ms": took, "ms_over_empty": took - empty}, name)
