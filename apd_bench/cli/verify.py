"""`apd-bench verify`: runs the reduced grid from nothing and compares it with the expected values."""

import argparse
import tempfile
from pathlib import Path

from apd_bench.cli import arguments
from apd_bench.cli.console import err, out
from apd_bench.core.errors import EXIT_CELLS_FAILED, EXIT_DONE, EXIT_REGRESSION
from apd_bench.core.options import DISPLAY, HOW, RunOptions
from apd_bench.core.package_data import baselines_path
from apd_bench.core.text import table
from apd_bench.records import regression
from apd_bench.records.regression import Counts, Difference
from apd_bench.records.store import Store
from apd_bench.runner.session import make_reporter, plan_of, run_plan
from apd_bench.suites import load_suite

EXAMPLES = """examples:
  apd-bench verify                  3 with a table where values differ, else 0
  apd-bench verify --results kept   keep the records, and go on from them
  apd-bench verify --update         what was measured becomes what is expected
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", default="ci", metavar="NAME|FILE", help="the grid to run (default: ci)")
    parser.add_argument("--expected", type=Path, metavar="FILE", help="expected values (default: those of the suite)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder of records (default: a temporary one)")
    parser.add_argument("--update", action="store_true", help="write what was measured as the expected values")
    arguments.declare(parser, HOW, DISPLAY, without=("dry_run", "calibrate"))


def execute(args: argparse.Namespace) -> int:
    """Runs the grid and compares; 0 as expected, 1 when cells failed, 3 when values differ."""
    if args.results is not None:
        return _verify(args, args.results)
    with tempfile.TemporaryDirectory(prefix="apd-bench-verify-") as folder:
        return _verify(args, Path(folder))


def _verify(args: argparse.Namespace, results: Path) -> int:
    suite = load_suite(args.suite)
    path = args.expected or baselines_path("regression", f"{suite.name}.json")
    expected = {} if args.update else regression.load_expected(path)
    grid, store = plan_of(RunOptions(suite=args.suite)), Store(results)
    code = run_plan(grid, store, args.options, make_reporter(args.options)).exit_code
    if code not in (EXIT_DONE, EXIT_CELLS_FAILED):
        return code
    measured = regression.measure(store)
    for line in measured.failures:
        err(f"failed: {line}")
    if measured.failures or not measured.places:
        return EXIT_CELLS_FAILED
    if args.update:
        regression.save_expected(path, suite.name, measured)
        out(f"Wrote {len(measured.places)} places to {path}.")
        return EXIT_DONE
    return _judge(regression.compare(expected, measured), measured, str(path))


def _judge(differences: list[Difference], measured: Counts, source: str) -> int:
    count = sum(len(values) for values in measured.places.values())
    if not differences:
        out(f"As expected: {count} values agree with {source}.")
        return EXIT_DONE
    out(table([item.text for item in differences], header=("where", "what", "expected", "measured")))
    err(f"apd-bench: {len(differences)} of {count} values differ from {source}.")
    err("If the change is meant, look at it and run: apd-bench verify --update")
    return EXIT_REGRESSION
