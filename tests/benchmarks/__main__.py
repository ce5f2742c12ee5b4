"""`python -m tests.benchmarks [PART]`: measures a part, or all, each in its own process; prints and writes tables."""

import argparse
import subprocess
import sys
from pathlib import Path
from types import FunctionType

from apd_bench.core.targets import resolve
from tests.benchmarks.table import document, page, write

PARTS = {
    "startup": "startup:rows", "store": "stores:rows", "data": "images:rows", "loop": "attacks:loops",
    "train": "train:rows", "attacks": "attacks:rows", "suites": "suites:rows", "audit": "suites:audit_rows",
    "memory": "memory:rows", "precision": "precision:rows",
}  # fmt: skip


def main(words: list[str]) -> int:
    """Prints the table of a part, or of every part; the exit code says whether all could be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="default: all of them")
    parser.add_argument("--quick", action="store_true", help="the embedded model alone, in minutes")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write tables and numbers, such as results/bench")
    given = parser.parse_args(words)
    if given.part is None:
        codes = [subprocess.run([sys.executable, "-m", "tests.benchmarks", part, *words]).returncode for part in PARTS]
        return int(any(codes))
    rows = resolve(f"tests.benchmarks.{PARTS[given.part]}", FunctionType)(given.quick, given.device)
    data = document(given.part, list(rows), given.device)
    if given.out is not None:
        write(given.out, given.part, data)
    sys.stdout.write(page([data]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
