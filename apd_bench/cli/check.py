"""`apd-bench check NAME`: the contract of a method or a defence, tried out in seconds on a toy problem."""

from __future__ import annotations

import argparse
import dataclasses
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from apd_bench.cli.console import out, out_json
from apd_bench.core.errors import EXIT_CELLS_FAILED, EXIT_DONE, UsageError
from apd_bench.core.registry import DEFENCES, METHODS
from apd_bench.defences.catalog import DefenceEntry

if TYPE_CHECKING:
    from apd_bench.training.contract import CheckResult

EXAMPLES = """examples:
  apd-bench check apd                        a registered method
  apd-bench check my_method.py:METHOD        one of yours
  apd-bench check apd --backbone tiny-clean  not on the toy backbone
  apd-bench check ttc                        a test-time defence
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="NAME", help="a method or a defence: a name, or path/to/file.py:NAME")
    parser.add_argument("--backbone", default="toy", metavar="NAME", help="default: a toy CLIP with random weights")
    parser.add_argument("--json", action="store_true", help="the results as JSON")


def execute(args: argparse.Namespace) -> int:
    """Prints one line a check; exit code 1 when one fails."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from apd_bench.training.contract import check
    from apd_bench.training.defence_contract import check_defence

    entry = _entry(args.method)
    backbone = None
    if args.backbone != "toy":
        from apd_bench.backbones.load import load_backbone

        backbone = load_backbone(args.backbone)
    if isinstance(entry, DefenceEntry):
        results = check_defence(entry, backbone=backbone)
    else:
        results = check(entry, backbone=backbone)
    if args.json:
        out_json([dataclasses.asdict(result) for result in results])
    else:
        out("\n".join(_lines(entry.name, results)))
    return EXIT_DONE if all(result.passed for result in results) else EXIT_CELLS_FAILED


def _entry(name: str) -> Any:
    """The method of this name, or the defence where there is no such method; raises what is wrong with the name."""
    try:
        return METHODS.get(name)
    except UsageError:
        with suppress(UsageError):
            return DEFENCES.get(name)
        raise


def _lines(name: str, results: list[CheckResult]) -> list[str]:
    lines = []
    for result in results:
        lines.append(f"{'ok  ' if result.passed else 'FAIL'}  {result.name}  ({result.seconds:.1f} s)")
        if result.detail:
            lines.append(f"      {result.detail}")
    failed = sum(not result.passed for result in results)
    lines.append(f"{name}: " + (f"{failed} of {len(results)} checks failed" if failed else "all checks hold"))
    return lines
