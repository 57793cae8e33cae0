"""Runs every example, and each block of Python, JavaScript and C in the READMEs, as a reader would, and counts.

`examples.py --node node --lib-dir target/release --rust-dir target/debug/examples`: the Node to run with, where
libdlock_c.so was built, and where `cargo test` built the examples in Rust. The Rust blocks are run by `cargo test`. A
language without examples is a failure.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "bindings-python/README.md", "bindings-node/README.md", "bindings-c/README.md"]
BLOCK = re.compile(r"^```(python|js|mjs|cjs|c)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What an example in C needs beside the library is in a comment.
LIBRARIES = re.compile(r"^// libraries: (.+)$", re.MULTILINE)
CC_FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror"]
DYLIB, ABI = ("dylib", "libdlock.0.dylib") if sys.platform == "darwin" else ("so", "libdlock.so.0")

LANGUAGES = ["Python", "Rust", "JavaScript", "C"]
LANGUAGE_OF = {".py": "Python", ".rs": "Rust", ".mjs": "JavaScript", ".cjs": "JavaScript", ".c": "C"}


class Runner:
    """Runs things, in a folder that looks to them like one where dlock is installed."""

    def __init__(self, folder: Path, node: str, library: Path, rust: Path) -> None:
        self.folder, self.node, self.rust = folder, node, rust
        self.results: list[bool] = []
        (folder / "node_modules").mkdir()
        (folder / "node_modules" / "dlock-rs").symlink_to(ROOT)
        self.lib = folder / "lib"
        self.lib.mkdir()
        for name in (f"libdlock.{DYLIB}", ABI):
            (self.lib / name).symlink_to(library / f"libdlock_c.{DYLIB}")

    def run(self, name: str, *commands: list[str], folder: Path | None = None) -> None:
        """Runs commands until one fails, their output shown under a name."""
        print(f"{name}", flush=True)
        began, code = time.monotonic(), "0"
        for command in commands:
            output, code = self.one(command, folder or self.folder)
            print("".join(f"    {line}\n" for line in output.splitlines()), end="")
            if code != "0":
                break
        print(f"    {'ok' if code == '0' else f'FAILED ({code})'}, {time.monotonic() - began:.1f} s", flush=True)
        self.results.append(code == "0")

    def one(self, command: list[str], folder: Path) -> tuple[str, str]:
        """The output of a command and how it ended."""
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=120, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            return (late.stdout or b"").decode(), "no end"
        except OSError as error:
            return str(error), "not started"
        return done.stdout, str(done.returncode)

    def script(self, name: str, path: Path) -> None:
        """Runs a program by its ending."""
        if path.suffix == ".rs":
            self.run(name, [str(self.rust / path.stem)], folder=ROOT)
        elif path.suffix == ".c":
            program = self.folder / path.stem
            libraries = [f"-l{one}" for found in LIBRARIES.findall(path.read_text()) for one in found.split()]
            compiler = [os.environ.get("CC", "cc"), *CC_FLAGS, f"-I{ROOT / 'bindings-c' / 'include'}"]
            linked = ["-o", str(program), str(path), f"-L{self.lib}", f"-Wl,-rpath,{self.lib}", "-ldlock", "-lpthread"]
            self.run(name, [*compiler, *linked, *libraries], [str(program)])
        else:
            self.run(name, [sys.executable if path.suffix == ".py" else self.node, str(path)])

    def at_least_one(self, place: str, languages: set[str]) -> None:
        """Counts a failure for every language that has nothing there."""
        for language in LANGUAGES:
            if language not in languages:
                print(f"{place}: FAILED: nothing in {language}")
                self.results.append(False)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The programs in a page: ending and text. A piece of C without main is not one."""
    for kind, text in BLOCK.findall(page.read_text()):
        ending = {"python": ".py", "js": ".mjs" if re.search(r"^import ", text, re.MULTILINE) else ".cjs"}
        if kind != "c" or "main(" in text:
            yield ending.get(kind, f".{kind}"), text


def main() -> int:
    """Runs all, prints the sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", default="node")
    parser.add_argument("--lib-dir", type=Path, default=ROOT / "target" / "release")
    parser.add_argument("--rust-dir", type=Path, default=ROOT / "target" / "debug" / "examples")
    words = parser.parse_args()
    # A bare name is looked up on PATH; a path is one from here.
    node = words.node if os.sep not in words.node else str(Path(words.node).absolute())
    with tempfile.TemporaryDirectory() as name:
        runner = Runner(Path(name), node, words.lib_dir.resolve(), words.rust_dir.resolve())
        paths = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in LANGUAGE_OF)
        for path in paths:
            runner.script(f"examples/{path.name}", path)
        runner.at_least_one("examples", {LANGUAGE_OF[path.suffix] for path in paths})
        shown = {"Rust"}
        for page in PAGES:
            if not (ROOT / page).exists():
                continue
            for number, (ending, text) in enumerate(blocks(ROOT / page), 1):
                script = Path(name) / f"block{ending}"
                script.write_text(text)
                runner.script(f"{page}, program {number}, {LANGUAGE_OF[ending]}", script)
                shown |= {LANGUAGE_OF[ending]} if page == PAGES[0] else set()
        runner.at_least_one(PAGES[0], shown)
    passed, failed = runner.results.count(True), runner.results.count(False)
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
