"""Workload e: one client holds many locks, and keeps them alive for some ttl."""

from table import row

KEYS = 10_000
PERIODS = 3


def run(backend, url, bench):
    """Measure it."""
    for who in ("raw", "rust"):
        row("e", backend, who, bench.rust(bench.program, "e", url, who, KEYS, PERIODS), "")
