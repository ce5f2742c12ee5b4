"""`python -m tests.benchmarks.cuda --out DIR`: is this machine's GPU right, and how fast; no downloads, minutes.

Every check prints PASS, FAIL, NOTE (a number without a right answer) or SKIP as soon as it is done, and is written to
DIR/cuda/checks.json and DIR/cuda.md at once. Models: the embedded ones, and ViT-B/16 at 224 pixels with random weights.
`--device cpu` tries what needs no GPU; `--small` tries everything with sizes for a pretended one.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from apd_bench.runner.batches import free_memory
from tests.benchmarks.cuda.checks import CHECKS, Bench, Skip, Wrong
from tests.benchmarks.table import machine

PARTS = ("right", "host", "speed", "commands")  # a module's checks are declared when it is imported


def write(out: Path, device: str, results: list[dict[str, Any]]) -> None:
    """The results as JSON and as a page."""
    (out / "cuda").mkdir(parents=True, exist_ok=True)
    about = machine(device)
    text = json.dumps({"machine": about, "checks": results}, indent=1)
    (out / "cuda" / "checks.json").write_text(f"{text}\n", "utf-8")
    lines = [f"{about['machine']}; torch {about['torch']}, Python {about['python']}", ""]
    lines += ["| check | | s | what was seen |", "|---|---|---|---|"]
    tables = []
    for item in results:
        facts = dict(item["facts"]) if isinstance(item["facts"], dict) else {"": item["facts"]}
        tables += [facts.pop("table")] if "table" in facts else []
        words = "; ".join(f"{key}: {value}".removeprefix(": ") for key, value in facts.items())
        cells = (item["check"], item["state"], str(item["seconds"]), re.sub(r"[|\n]", " ", words))
        lines.append(f"| {' | '.join(cells)} |")
    (out / "cuda.md").write_text("\n".join([*lines, *(f"\n{table}" for table in tables), ""]), "utf-8")


def main(words: list[str]) -> int:
    """Runs the checks for which there is time; 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cuda", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--seconds", type=float, default=540, help="checks that would not fit any more are skipped")
    parser.add_argument("--only", default="", help="words of the names of checks, separated by commas")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args(words)
    began = time.time()
    bench = Bench(given.device, given.small, began + given.seconds)
    results: list[dict[str, Any]] = []
    for part in PARTS:
        importlib.import_module(f"tests.benchmarks.cuda.{part}")
    wanted = [word for word in given.only.split(",") if word]
    for name, estimate, function in CHECKS:
        if wanted and not any(word in name for word in wanted):
            continue
        start, facts = time.time(), None
        if bench.ends - start < 0.7 * estimate:
            state, facts = "SKIP", "no time"
        else:
            try:
                facts, state = function(bench), "NOTE" if name.endswith("*") else "PASS"
            except (Skip, Wrong) as reason:
                state, facts = "SKIP" if isinstance(reason, Skip) else "FAIL", str(reason)
            except Exception:
                state, facts = "FAIL", traceback.format_exc()[-900:]
            with contextlib.suppress(Exception):
                free_memory()
        spent = round(time.time() - start, 1)
        results.append({"check": name.rstrip(" *"), "state": state, "seconds": spent, "facts": facts})
        write(given.out, given.device, results)
        sys.stdout.write(f"{state} {name} [{spent:.0f} s]\n     {facts}\n"[:2500])
        sys.stdout.flush()
    return int(any(item["state"] == "FAIL" for item in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
