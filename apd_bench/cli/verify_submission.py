"""`apd-bench verify-submission`: checks an archive, measures some of its cells again, and compares sample by sample."""

import argparse
import secrets
import shutil
import tempfile
from pathlib import Path

from apd_bench.cli import arguments
from apd_bench.cli.console import err, out
from apd_bench.core.errors import EXIT_DONE, EXIT_REGRESSION
from apd_bench.core.options import DISPLAY, HOW
from apd_bench.core.specs import Cell, Suite
from apd_bench.core.text import table
from apd_bench.core.versions import MANIFEST
from apd_bench.records.store import Store
from apd_bench.records.submission import check_records, disagreement, draw_cells, unpack
from apd_bench.runner.plan import Plan
from apd_bench.runner.session import make_reporter, run_plan

EXAMPLES = """examples:
  apd-bench verify-submission submission.tar.gz   5 cells at random
  apd-bench verify-submission submission.tar.gz --cells 20 --seed 7
  apd-bench verify-submission submission.tar.gz --accept results
  apd-bench verify-submission submission.tar.gz --methods mine.py:METHOD
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", type=Path, metavar="FILE", help="what `apd-bench submit` wrote")
    parser.add_argument("--cells", type=int, default=5, metavar="N", help="cells to measure again (default: 5)")
    parser.add_argument("--seed", type=int, metavar="N", help="repeat a draw (default: one that nobody can foresee)")
    parser.add_argument(
        "--allow", type=int, default=0, metavar="N", help="samples per cell that may differ (default: 0, same machine)"
    )
    parser.add_argument("--accept", type=Path, metavar="STORE", help="add the records to this store when all agree")
    arguments.add_own(parser)
    arguments.declare(parser, HOW, DISPLAY, without=("dry_run", "calibrate"))


def execute(args: argparse.Namespace) -> int:
    """0 when all drawn cells agree, 3 with a table when they do not, 1 when some could not be measured."""
    arguments.name_own(args)
    with tempfile.TemporaryDirectory(prefix="apd-bench-submission-") as name:
        folder = Path(name)
        manifest = unpack(args.archive, folder / "submitted")
        submitted, again = Store(folder / "submitted"), Store(folder / "again")
        records = check_records(submitted)
        err(f"{len(records)} records of {', '.join(manifest['methods'])} are whole and consistent.")
        # A known draw would invite forgery elsewhere.
        seed = secrets.randbelow(10**6) if args.seed is None else args.seed
        cells = draw_cells(records, args.cells, seed)
        err(f"{len(cells)} cells are drawn and measured again (--seed {seed}).")
        code = _measure(args, cells, submitted, again)
        if code != EXIT_DONE:
            return code
        pairs = [(cell, submitted.outcomes(cell.id), again.outcomes(cell.id)) for cell in cells]
        if found := [item for pair in pairs if (item := disagreement(*pair, args.allow))]:
            rows = [(i.cell.label, f"{i.samples}/{i.n}", str(i.submitted), str(i.measured)) for i in found]
            out(table(rows, header=("cell", "samples that differ", "robust submitted", "robust here")))
            return EXIT_REGRESSION
        samples = sum(len(measured) for *_, measured in pairs)
        out(f"{len(cells)} cells measured again: all {samples} samples agree.")
        if args.accept is not None:
            _accept(submitted, Store(args.accept), args)
    return EXIT_DONE


def _measure(args: argparse.Namespace, cells: list[Cell], submitted: Store, again: Store) -> int:
    """Attacks the submitted prompt states again, in a store of its own."""
    for cell in cells:
        shutil.copytree(submitted.fit_path(cell.fit.id), again.fit_path(cell.fit.id), dirs_exist_ok=True)
    plan = Plan(Suite(name="submission"), tuple(cells))
    return run_plan(plan, again, args.options, make_reporter(args.options)).exit_code


def _accept(submitted: Store, target: Store, args: argparse.Namespace) -> None:
    """Adds records and prompt states that are not there yet."""
    added = 0
    with target.writer(wait=args.options.wait):
        statuses = target.statuses()
        for record in submitted.records():
            if statuses.get(record.id) == "success":
                continue
            fit_id = record.cell.fit.id
            if target.fit_problem(fit_id) is not None:
                files = submitted.fit_path(fit_id).iterdir()
                target.put_fit(fit_id, {path.name: path.read_bytes() for path in files if path.name != MANIFEST})
            target.put(record, Store(submitted.path).outcomes(record.id, record))  # nothing of it stays in memory
            added += 1
    out(f"{added} records added to {target.path}.")
    err(f"Make the boards anew: apd-bench report {target.path} --out leaderboards")
