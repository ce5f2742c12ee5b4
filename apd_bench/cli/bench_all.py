"""`apd-bench bench` without a part: every part in a process of its own, and one table of them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apd_bench.cli.bench_output import check_file, write_file
from apd_bench.cli.console import err, out
from apd_bench.errors import EXIT_CELLS_FAILED, EXIT_DONE, CorruptFile, MissingPrerequisite
from apd_bench.specs import format_eps

if TYPE_CHECKING:
    from apd_bench.bench.rows import Row

SUMMARY, OUT = "summary", "--out DIR"
OF_ALL_PARTS = {"APD_BENCH_OUT", "APD_BENCH_READ"}  # options that a part refuses
LEGEND = (
    "*Usual* is what the field does, *ours* what apd-bench does, on the same weights, samples and files in one run, "
    "in turn; medians with their range. *Limit* is work that nobody can avoid (the passes of the model alone, reading "
    "the files, starting Python), *ours above it* the median over the repeats. Seconds on a CPU are those of the "
    "processor."
)


def summarise(parts: Sequence[str], *, quick: bool, out_folder: Path | None, read: bool) -> int:
    """Measures (or reads) the parts and prints one table; the exit code says whether every part could be measured."""
    if read and out_folder is not None:
        found = _read(out_folder, parts)
        return _show(found, out_folder)
    with tempfile.TemporaryDirectory(prefix="apd-bench-bench-") as temporary:
        folder = out_folder or Path(temporary)
        check_file(folder / f"{SUMMARY}.json", OUT)
        failed = [name for name in parts if not _measure(name, folder, quick=quick)]
        _show(_read(folder, [name for name in parts if name not in failed]), out_folder)
    return EXIT_CELLS_FAILED if failed else EXIT_DONE


def _measure(name: str, folder: Path, *, quick: bool) -> bool:
    began = time.perf_counter()
    words = [sys.executable, "-m", "apd_bench", "bench", name, *(["--quick"] if quick else [])]
    words += ["--json", str(folder / f"{name}.json"), "--markdown", str(folder / f"{name}.md")]
    variables = {key: value for key, value in os.environ.items() if key not in OF_ALL_PARTS}
    done = subprocess.run(  # noqa: S603  (this package itself)
        words, capture_output=True, text=True, check=False, env=variables
    )
    err(f"{name}: {time.perf_counter() - began:.0f} s")
    if done.returncode:
        err("\n".join(done.stderr.splitlines()[-3:]))
    return done.returncode == 0


def _read(folder: Path, parts: Sequence[str]) -> dict[str, Any]:
    found = {}
    for name in parts:
        path = folder / f"{name}.json"
        if path.is_file():
            try:
                found[name] = json.loads(path.read_bytes())
            except ValueError as error:
                raise CorruptFile(
                    f"{path} is no JSON: {error}.", hint=f"apd-bench bench {name} --json {path}"
                ) from error
            except OSError as error:
                raise MissingPrerequisite(
                    f"Cannot read {path}: {error.strerror}.", hint="Mend its permissions."
                ) from error
    if not found:
        raise MissingPrerequisite(f"There are no numbers in {folder}.", hint=f"apd-bench bench --out {folder}")
    return found


def _show(found: Mapping[str, Any], folder: Path | None) -> int:
    from apd_bench.bench.rows import machine, markdown

    rows: list[Row] = []
    machines: set[str] = set()
    for name, data in found.items():
        try:
            own = rows_of(name, data)
            markdown(own)
            machines |= {str(data["machine"]["machine"])} if "machine" in data else set()
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            path = (folder or Path()) / f"{name}.json"
            raise CorruptFile(
                f"{path} does not hold the numbers of bench {name} ({type(error).__name__}: {error}).",
                hint=f"Measure them again: apd-bench bench {name} --json {path}",
            ) from error
        rows += own
    machines = machines or {machine()["machine"]}
    text = f"{'; '.join(sorted(machines))}\n\n{markdown(rows)}\n\n{LEGEND}"
    out(text)
    if folder is not None:
        write_file(folder / f"{SUMMARY}.md", text, OUT)
        write_file(folder / f"{SUMMARY}.json", json.dumps(dict(found), indent=1, sort_keys=True), OUT)
    return EXIT_DONE


def rows_of(part: str, data: Mapping[str, Any]) -> list[Row]:
    """The rows behind the numbers of a part."""
    from apd_bench.bench.rows import row_of

    return [row_of(item) for item in data["rows"]] if "rows" in data else attack_rows(part, data)


def attack_rows(part: str, data: Mapping[str, Any]) -> list[Row]:
    """The pairs of `bench attacks` as rows."""
    from apd_bench.bench.rows import Row

    return [
        Row(
            part=part,
            what=f"{pair['attack']} on {pair['backbone']}, {format_eps(pair['eps'])}, {len(pair['ids'])} images",
            usual=tuple(pair["usual"]["seconds"]),
            ours=tuple(pair["ours"]["seconds"]),
            limit=tuple(pair["limit_seconds"]),
            facts=_facts(pair),
        )
        for pair in data["pairs"]
    ]


def _facts(pair: Mapping[str, Any]) -> dict[str, str]:
    sides, n = (pair["usual"], pair["ours"]), max(len(pair["ids"]), 1)
    facts = {"backwards per image": " / ".join(f"{side['backwards'] / n:.1f}" for side in sides)}
    if pair["ours"]["robust_accuracy"] is not None:
        facts["robust accuracy, %"] = " / ".join(f"{100 * side['robust_accuracy']:.1f}" for side in sides)
    return facts
