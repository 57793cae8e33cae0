"""The workloads beside their raw baselines, from each language, as one table of ratios.

Speed is a ratio against a baseline of the same run, in turns with it. Absolute figures of a shared machine mean little:
the baseline's own are shown to tell the state it was in.
"""

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

import alone
import held
import others
import peers
import processes
import raw
import servers
import start_up
import together
from table import HEAD

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[2] / "target"))


class Bench:
    """What the workloads share."""

    def __init__(self, folder, with_peers, node):
        self.folder, self.node = folder, node
        self.program = TARGET / "release" / "dlock-bench"
        self.raw, self.library = raw.library(folder)
        self.others = others.programs(folder, TARGET)
        self.peers = with_peers
        self.rust_peers = peers.install() if with_peers else None
        self.go_peer = peers.go() if "etcd" in with_peers else None

    def programs(self, backend):
        """Those that measure in Rust."""
        has_peers = servers.is_remote(backend) and backend != "mysql" and self.rust_peers
        return [self.program, self.rust_peers] if has_peers else [self.program]

    def rust(self, program, *arguments):
        """Run one workload in Rust."""
        return self.told([program], *arguments)

    def told(self, command, *arguments):
        """Run a program that tells figures."""
        done = subprocess.run([*command, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)


def measure(workload, backend, urls, bench):
    """One workload on one backend; not all have all."""
    url = urls[backend]
    if workload == "a":
        alone.run(backend, url, bench)
        if servers.is_remote(backend):
            alone.run(backend, urls[f"{backend} +0.5ms"], bench, f"{backend} +0.5ms")
    elif workload in ("b", "d"):
        for workers in (16, 64) if workload == "b" else (64,):
            together.run(backend, url, bench, workload, workers)
    elif workload == "c" and backend != "memory":
        processes.run(backend, url, bench)
    elif workload == "e" and servers.is_remote(backend):
        held.run(backend, url, bench)
    elif workload == "f" and backend == "file":
        start_up.run(bench.folder, TARGET, bench.node)


def main():
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = {
        "workload": ["a", "b", "c", "d", "e", "f"],
        "backend": ["memory", "file", "redis", "etcd", "mysql", "zookeeper"],
    }
    for option, choices in every.items():
        parser.add_argument(f"--{option}", nargs="+", choices=choices, default=choices, help="default: all")
    parser.add_argument("--no-peers", action="store_true", help="ours and the baselines alone")
    parser.add_argument("--node", default="node", help="the Node that the addon was built for")
    chosen = parser.parse_args()
    remote = [backend for backend in chosen.backend if servers.is_remote(backend)]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bench = Bench(folder, [] if chosen.no_peers else remote, chosen.node)
        urls = {"memory": "memory://bench", "file": f"file://{folder}/locks"}
        for backend in remote:
            urls[backend], urls[f"{backend} +0.5ms"] = stack.enter_context(servers.started(bench.program, backend))
        print(HEAD)
        for workload in chosen.workload:
            for backend in chosen.backend:
                measure(workload, backend, urls, bench)


if __name__ == "__main__":
    main()
