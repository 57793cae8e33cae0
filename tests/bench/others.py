"""The programs that measure in other languages than Rust and Python, by language: each as the words of its command.

A program tells figures as JSON: `a URL` those of the whole workload; `b`, `d`, `b-raw` and `d-raw`, URL and WORKERS
those of one slice, of ours or of the baseline. Node's is asked for one slice after the other: what is compiled while it
runs isn't measured each time.
"""

import contextlib
import json
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


def programs(folder, target):
    """All of them, built."""
    return {"c": [c(folder, target, "bench", *map(HERE.joinpath, ("c/bench.c", "raw_file.c", "raw_redis.c")))]}


def c(folder, target, name, *sources):
    """Compile a program against the library, installed as a user would."""
    prefix = Path(folder, "installed")
    if not prefix.exists():
        environment = os.environ | {"PREFIX": str(prefix), "DESTDIR": "", "CARGO_TARGET_DIR": str(target.absolute())}
        install = [HERE.parents[1] / ".ci" / "install-c"]
        subprocess.run(install, env=environment, check=True, stdout=subprocess.DEVNULL)
    built, lib = Path(folder, name), prefix / "lib"
    flags = ["-std=c99", "-O2", f"-I{prefix}/include"]
    link = [f"-L{lib}", f"-Wl,-rpath,{lib}", "-ldlock", "-lpthread"]
    subprocess.run(["cc", *flags, "-o", built, *sources, *link], check=True)
    return built


@contextlib.contextmanager
def node(program, url):
    """Start Node's program; yield what asks it for a slice."""
    command = [program, HERE / "node" / "bench.mjs", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:

        def ask(*words):
            print(*words, file=running.stdin, flush=True)
            answer = running.stdout.readline()
            if not answer:
                raise SystemExit(f"it gave up: {command}")
            return json.loads(answer)

        yield ask
