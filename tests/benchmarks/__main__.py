"""`python -m tests.benchmarks [PART ...]`: measures parts and writes their tables; every part in its own process."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from tests.benchmarks.table import Request, document, page, write

PARTS = {
    "startup": "startup",
    "store": "stores",
    "data": "images",
    "loop": "loop",
    "train": "train",
    "attacks": "attacks",
    "suites": "suites",
    "memory": "memory",
    "precision": "precision",
}


def main(words: list[str]) -> int:
    """Prints the table of the parts; the exit code says whether every part could be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="the embedded model alone, in minutes")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--records", type=Path, default=Request.records, help="verdicts of AutoAttack for `suites`")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write tables and numbers, such as results/bench")
    given = parser.parse_args(words)
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    if len(given.parts) == 1:
        (part,) = given.parts
        request = Request(quick=given.quick, device=given.device, records=given.records)
        data = document(part, list(import_module(f"tests.benchmarks.{PARTS[part]}").rows(request)), given.device)
        if given.out is not None:
            write(given.out, part, data)
        sys.stdout.write(page([data]))
        return 0
    options = ["--device", given.device, "--records", str(given.records), *(["--quick"] if given.quick else [])]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        failed = [part for part in given.parts or PARTS if not _measure(part, [*options, "--out", str(folder)])]
        if (summary := folder / "summary.md").is_file():
            sys.stdout.write(summary.read_text("utf-8"))
    return bool(failed)


def _measure(part: str, options: list[str]) -> bool:
    sys.stderr.write(f"{part}\n")
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks", part, *options], stdout=subprocess.DEVNULL)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
