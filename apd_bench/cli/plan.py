"""`apd-bench plan`: every cell of a run, what is done, what is to do, what is impossible and why."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from itertools import islice
from typing import TYPE_CHECKING

from apd_bench.cli import arguments
from apd_bench.cli.console import err, out
from apd_bench.errors import EXIT_DONE

if TYPE_CHECKING:
    from apd_bench.runner.speed import Speed
    from apd_bench.specs import Cell
    from apd_bench.store import Store

_ROWS = 30  # cells of a plan that a terminal shows one by one
_RECORDS_TIMED = 200  # enough to know a speed, few enough to read at once
EXAMPLES = """examples:
  apd-bench plan                                    the embedded suite
  apd-bench plan --methods all --eps 1/255,4/255    what a larger grid would cost
  apd-bench plan fap-cross --data ~/data            the cells of a paper, and what of its data is missing here
  apd-bench plan --calibrate                        with hours, after some seconds of measuring
  apd-bench plan --json | jq '.cells[].id'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.epilog = EXAMPLES
    arguments.add_selection(parser)
    arguments.add_places(parser)
    arguments.add_strategy(parser)
    arguments.add_machine(parser)
    parser.add_argument("--all", action="store_true", help="every cell, also of a large plan on a terminal")
    parser.add_argument("--json", action="store_true", help="the whole plan as JSON on standard output")


def execute(args: argparse.Namespace) -> int:
    """Prints the plan."""
    return show_plan(args)


def show_plan(args: argparse.Namespace) -> int:
    """Prints cells, fits, impossible cells and the estimate; measures nothing and writes nothing."""
    from apd_bench.backbones.present import missing_weights
    from apd_bench.cli.plan_table import rows_of, summary, whole
    from apd_bench.data.check import what_is_missing
    from apd_bench.runner.estimate import fit_passes, passes_of
    from apd_bench.runner.plan import fits_of, plan
    from apd_bench.runner.report import choose
    from apd_bench.runner.reporter import duration
    from apd_bench.runner.selection import resolve
    from apd_bench.runner.speed import disk_bytes, work_seconds
    from apd_bench.store import Store

    arguments.prepare_environment(args)
    grid = plan(resolve(arguments.suite_of(args), arguments.selection_of(args)))
    store = Store(args.results)
    statuses = store.statuses()
    todo = choose(grid.cells, statuses, arguments.strategy_of(args))
    fits = {fit.id: fit for cell in todo for fit in fits_of(cell)}
    missing = [fit for fit_id, fit in fits.items() if not store.has_fit(fit_id)]
    passes = [passes_of(cell) for cell in todo] + [fit_passes(fit) for fit in missing]
    forwards, backwards = sum(item[0] for item in passes), sum(item[1] for item in passes)
    sets = {spec.name: spec for cell in todo for spec in (cell.fit.dataset, cell.dataset)}
    absent = {name: reason for name, spec in sets.items() if (reason := what_is_missing(spec)) is not None}
    backbones = {cell.fit.backbone.name: cell.fit.backbone for cell in todo}
    unfetched = {name: reason for name, spec in backbones.items() if (reason := missing_weights(spec)) is not None}
    speeds = _speeds(args, store, todo)
    seconds, unknown = work_seconds(todo, missing, speeds)
    room = disk_bytes(todo, missing)
    if getattr(args, "json", False):
        out(
            json.dumps(
                {
                    "suite": grid.suite.name,
                    "cells": [
                        {"id": cell.id, "label": cell.label, "fit": cell.fit.id, "status": statuses.get(cell.id)}
                        for cell in grid.cells
                    ],
                    "impossible": [
                        {"id": item.cell.id, "label": item.cell.label, "reason": item.reason}
                        for item in grid.impossible
                    ],
                    "to_do": [cell.id for cell in todo],
                    "fits_to_train": [fit.id for fit in missing],
                    "forwards": forwards,
                    "backwards": backwards,
                    "missing_data": absent,
                    "missing_weights": unfetched,
                    "work_seconds": seconds,
                    "work_seconds_unknown_for": sorted(unknown),
                    "disk_bytes": room,
                },
                indent=1,
            )
        )
        return EXIT_DONE
    rows = rows_of(grid, statuses, {cell.id for cell in todo})
    if sys.stdout.isatty() and len(rows) > _ROWS and not getattr(args, "all", False):
        out(summary(rows, shutil.get_terminal_size().columns))
        err("apd-bench plan --all lists every cell.")
    else:
        out(whole(rows))
    for damage in store.damaged():
        err(f"warning: {damage.reason}")
    err(
        f"{len(grid.cells)} cells: {len(grid.cells) - len(todo)} need nothing, {len(todo)} to measure; "
        f"{len(grid.impossible)} impossible. {len(missing)} of {len(grid.fits)} fits to train."
    )
    for name, reason in absent.items():
        err(f"missing data: {name}: {reason}")
    for name, reason in unfetched.items():
        err(f"missing weights: {name}: {reason}")
    err(f"At most {forwards:,.0f} forward and {backwards:,.0f} backward image passes, if every sample resists.")
    if todo and speeds:
        source = ", ".join(sorted({speed.source for speed in speeds.values()}))
        err(f"That is at most {duration(seconds)} of work for one process, by {source}; {room / 1e6:,.1f} MB on disk.")
    for name in sorted(unknown):
        err(f"No timing of {name} on this machine yet: add --calibrate to measure it for some seconds.")
    return EXIT_DONE


def _speeds(args: argparse.Namespace, store: Store, todo: list[Cell]) -> dict[str, Speed]:
    """The speed of each backbone of the plan: a calibration where asked for or kept, else the stored records."""
    from apd_bench.runner.speed import calibrate, calibrated, speeds_of

    backbones = {cell.fit.backbone.name: cell.fit.backbone for cell in todo}
    if not backbones:
        return {}
    found = speeds_of(islice(store.records(), _RECORDS_TIMED))
    speeds = {name: found[name] for name in backbones if name in found}
    for name, spec in backbones.items():
        device = args.device or "cpu"
        speed = calibrate(spec, device) if args.calibrate else calibrated(spec, device)
        if speed is not None:
            speeds[name] = speed
    return speeds
