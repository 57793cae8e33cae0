"""Runs every example and each block of Python in the README, as a reader would, and counts those that work."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(name: str, command: list[str], folder: Path) -> bool:
    """Runs one, its output shown under its name."""
    print(f"{name}", flush=True)
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        output, code = done.stdout, str(done.returncode)
    except subprocess.TimeoutExpired as late:
        output, code = (late.stdout or b"").decode(), "no end"
    print("".join(f"    {line}\n" for line in output.splitlines()), end="")
    print(f"    {'ok' if code == '0' else f'FAILED ({code})'}, {time.monotonic() - began:.1f} s", flush=True)
    return code == "0"


def main() -> int:
    """Runs all, prints the sum."""
    subprocess.run(["cargo", "build", "-p", "dlock-harness", "--examples"], cwd=ROOT, check=True)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in sorted(ROOT.glob("examples/*.py")):
            results.append(run(f"examples/{path.name}", [sys.executable, str(path)], folder))
        for path in sorted(ROOT.glob("examples/*.rs")):
            command = ["cargo", "run", "-q", "-p", "dlock-harness", "--example", path.stem]
            results.append(run(f"examples/{path.name}", command, ROOT))
        for page in [ROOT / "README.md", ROOT / "bindings-python" / "README.md"]:
            for number, block in enumerate(BLOCK.findall(page.read_text()), 1):
                script = folder / "block.py"
                script.write_text(block)
                label = f"{page.relative_to(ROOT)}, Python block {number}"
                results.append(run(label, [sys.executable, str(script)], folder))
    print(f"\n{results.count(True)} passed, {results.count(False)} failed")
    return 1 if False in results else 0


if __name__ == "__main__":
    sys.exit(main())
