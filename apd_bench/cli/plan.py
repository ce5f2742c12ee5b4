"""`apd-bench plan`: every cell of a run, what is done, what is to do, what is impossible and why."""

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from apd_bench.backbones.present import missing_weights
from apd_bench.cli import arguments
from apd_bench.cli.console import err, out, out_json
from apd_bench.cli.plan_table import rows_of, summary, whole
from apd_bench.core.errors import EXIT_DONE
from apd_bench.core.options import HOW, WHAT, WHERE, WHICH, RunOptions
from apd_bench.core.specs import BackboneSpec, Cell, Fit
from apd_bench.data.check import what_is_missing
from apd_bench.prompts.catalog import BY_IMAGE
from apd_bench.records.store import Store
from apd_bench.runner import speed as timing
from apd_bench.runner.estimate import passes_of
from apd_bench.runner.plan import Plan, fits_of
from apd_bench.runner.report import choose
from apd_bench.runner.reporter import duration
from apd_bench.runner.session import plan_of
from apd_bench.runner.speed import Speed, disk_bytes, work_seconds

_ROWS = 30  # cells of a plan that a terminal shows one by one
_RECORDS_TIMED = 200  # enough to know a speed, few enough to read at once
EXAMPLES = """examples:
  apd-bench plan                            the embedded suite
  apd-bench plan --methods all --eps 1/255,4/255
  apd-bench plan fap-cross --data ~/data    a paper's cells, and what is missing
  apd-bench plan fap-fewshot --gpu a100     hours on a GPU that is not here
  apd-bench plan --calibrate                hours, after seconds of measuring
  apd-bench plan --json | jq '.cells[].id'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.declare(parser, WHAT, WHERE, WHICH, HOW, without=("boards", "dry_run"))
    parser.add_argument("--all", action="store_true", help="every cell, also of a large plan on a terminal")
    parser.add_argument("--json", action="store_true", help="the whole plan as JSON on standard output")


def execute(args: argparse.Namespace) -> int:
    """Prints the plan."""
    return show_plan(args.options, every=args.all, as_json=args.json)


def show_plan(options: RunOptions, *, every: bool = False, as_json: bool = False) -> int:
    """Prints cells, fits, impossible cells and the estimate; measures nothing and writes nothing."""
    store, grid = Store(options.store), plan_of(options)
    statuses = store.statuses()
    todo = choose(grid.cells, statuses, options.strategy)
    fits = {fit.id: fit for cell in todo for fit in fits_of(cell)}
    to_train = [fit for fit_id, fit in fits.items() if fit.method.trains and not store.has_fit(fit_id)]
    speeds = _speeds(options, grid.suite.precision, store, {cell.fit.backbone.name: cell.fit.backbone for cell in todo})
    table = _table(grid, statuses, todo, to_train, speeds)
    if as_json:
        out_json(table)
        return EXIT_DONE
    rows = rows_of(grid, statuses, {cell.id for cell in todo})
    if sys.stdout.isatty() and len(rows) > _ROWS and not every:
        out(summary(rows, shutil.get_terminal_size().columns))
        err("apd-bench plan --all lists every cell.")
    else:
        out(whole(rows))
    for damage in store.damaged():
        err(f"warning: {damage.reason}")
    for line in _estimate(grid, todo, table, speeds):
        err(line)
    return EXIT_DONE


def _table(
    grid: Plan, statuses: Mapping[str, str], todo: list[Cell], to_train: list[Fit], speeds: dict[str, Speed]
) -> dict[str, Any]:
    """The plan as `--json` prints it: what is stored of it, what is missing for it, what the rest costs at most."""
    passes = [*map(passes_of, todo), *map(passes_of, to_train)]
    sets = {spec.name: spec for cell in todo for spec in (cell.fit.dataset, cell.dataset)}
    backbones = {cell.fit.backbone.name: cell.fit.backbone for cell in todo}
    seconds, untimed = work_seconds(todo, to_train, speeds)
    weights = ((name, missing_weights(spec)) for name, spec in backbones.items())
    return {
        "suite": grid.suite.name,
        "cells": [
            {"id": cell.id, "label": cell.label, "fit": cell.fit.id, "status": statuses.get(cell.id)}
            for cell in grid.cells
        ],
        "impossible": [
            {"id": item.cell.id, "label": item.cell.label, "reason": item.reason} for item in grid.impossible
        ],
        "to_do": [cell.id for cell in todo],
        "fits_to_train": [fit.id for fit in to_train],
        "forwards": sum(item[0] for item in passes),
        "backwards": sum(item[1] for item in passes),
        "missing_data": {name: lack for name, spec in sets.items() if (lack := what_is_missing(spec)) is not None},
        "missing_weights": {name: lack for name, lack in weights if lack is not None},
        "work_seconds": seconds,
        "work_seconds_unknown_for": sorted(untimed),
        "disk_bytes": disk_bytes(todo, to_train),
    }


def _estimate(grid: Plan, todo: list[Cell], table: Mapping[str, Any], speeds: Mapping[str, Speed]) -> Iterator[str]:
    """What is to do, what is missing for it and what it costs, in lines."""
    trained = sum(fit.method.trains for fit in grid.fits.values())
    yield (
        f"{len(grid.cells)} cells: {len(grid.cells) - len(todo)} need nothing, {len(todo)} to measure; "
        f"{len(grid.impossible)} impossible. {len(table['fits_to_train'])} of {trained} fits to train."
    )
    for kind in ("data", "weights"):
        for name, reason in table[f"missing_{kind}"].items():
            yield f"missing {kind}: {name}: {reason}"
    yield (
        f"At most {table['forwards']:,.0f} forward and {table['backwards']:,.0f} backward image passes, "
        "if every sample resists."
    )
    if todo and speeds:
        source = ", ".join(sorted({speed.source for speed in speeds.values()}))
        yield (
            f"That is at most {duration(table['work_seconds'])} of work for one process, by {source}; "
            f"{table['disk_bytes'] / 1e6:,.1f} MB on disk."
        )
    for name in dict.fromkeys(c.fit.method.name for c in todo if c.fit.method.learner in BY_IMAGE):
        yield f"{name} runs the text tower for every image and class too, which no count or timing here includes."
    for name in table["work_seconds_unknown_for"]:
        yield f"No timing of {name} on this machine yet: add --calibrate to measure it for some seconds."


def _speeds(
    options: RunOptions, precision: str, store: Store, backbones: Mapping[str, BackboneSpec]
) -> dict[str, Speed]:
    """The speed of each backbone of the plan: a calibration where asked for or kept, else the stored records.

    On a GPU that is named, the estimate for it.
    """
    if options.gpu is not None:
        guesses = {name: timing.estimated(spec, options.gpu, precision) for name, spec in backbones.items()}
        return {name: speed for name, speed in guesses.items() if speed is not None}
    device = options.device or timing.device_here()
    known = timing.speeds_of(islice(store.records(), _RECORDS_TIMED), device) if backbones else {}
    look = timing.calibrate if options.calibrate else timing.calibrated
    speeds = {name: look(spec, device) or known.get(name) for name, spec in backbones.items()}
    return {name: speed for name, speed in speeds.items() if speed is not None}
