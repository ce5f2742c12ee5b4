"""`apd-bench plan`: every cell of a run, what is done, what is to do, what is impossible and why."""

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from apd_bench.runner.estimate import passes_of
from apd_bench.runner.plan import Plan, fits_of
from apd_bench.runner.report import choose
from apd_bench.runner.reporter import duration
from apd_bench.runner.session import plan_of
from apd_bench.runner.speed import (
    Speed,
    calibrate,
    calibrated,
    device_here,
    disk_bytes,
    estimated,
    speeds_of,
    work_seconds,
)

_ROWS = 30  # cells of a plan that a terminal shows one by one
_RECORDS_TIMED = 200  # enough to know a speed, few enough to read at once
EXAMPLES = """examples:
  apd-bench plan                                    the embedded suite
  apd-bench plan --methods all --eps 1/255,4/255    what a larger grid would cost
  apd-bench plan fap-cross --data ~/data            the cells of a paper, and what of its data is missing here
  apd-bench plan fap-fewshot --gpu a100             with hours on a GPU that is not here: an estimate
  apd-bench plan --calibrate                        with hours, after some seconds of measuring
  apd-bench plan --json | jq '.cells[].id'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    arguments.declare(parser, WHAT, WHERE, WHICH, HOW, without=("boards", "dry_run"))
    parser.add_argument("--all", action="store_true", help="every cell, also of a large plan on a terminal")
    parser.add_argument("--json", action="store_true", help="the whole plan as JSON on standard output")


def execute(args: argparse.Namespace) -> int:
    """Prints the plan."""
    return show_plan(args.options, every=args.all, as_json=args.json)


def show_plan(options: RunOptions, *, every: bool = False, as_json: bool = False) -> int:
    """Prints cells, fits, impossible cells and the estimate; measures nothing and writes nothing."""
    store = Store(options.store)
    outlook = _outlook(options, store)
    if as_json:
        out_json(_table(outlook))
        return EXIT_DONE
    _show_cells(outlook, every)
    for damage in store.damaged():
        err(f"warning: {damage.reason}")
    for line in _estimate(outlook):
        err(line)
    return EXIT_DONE


@dataclass(frozen=True)
class _Outlook:
    """A plan with what is stored of it, what is missing for it, and what the rest costs at most."""

    grid: Plan
    statuses: Mapping[str, str]
    todo: list[Cell]
    fits: list[Fit]  # to train
    forwards: float
    backwards: float
    absent_data: Mapping[str, str]
    absent_weights: Mapping[str, str]
    speeds: Mapping[str, Speed]
    seconds: float
    untimed: list[str]
    disk_bytes: int


def _outlook(options: RunOptions, store: Store) -> _Outlook:
    grid = plan_of(options)
    statuses = store.statuses()
    todo = choose(grid.cells, statuses, options.strategy)
    fits = {fit.id: fit for cell in todo for fit in fits_of(cell)}
    to_train = [fit for fit_id, fit in fits.items() if not store.has_fit(fit_id)]
    passes = [*map(passes_of, todo), *map(passes_of, to_train)]
    sets = {spec.name: spec for cell in todo for spec in (cell.fit.dataset, cell.dataset)}
    backbones = {cell.fit.backbone.name: cell.fit.backbone for cell in todo}
    speeds = _speeds(options, grid.suite.precision, store, backbones)
    seconds, untimed = work_seconds(todo, to_train, speeds)
    return _Outlook(
        grid=grid,
        statuses=statuses,
        todo=todo,
        fits=to_train,
        forwards=sum(item[0] for item in passes),
        backwards=sum(item[1] for item in passes),
        absent_data={name: reason for name, spec in sets.items() if (reason := what_is_missing(spec)) is not None},
        absent_weights={
            name: reason for name, spec in backbones.items() if (reason := missing_weights(spec)) is not None
        },
        speeds=speeds,
        seconds=seconds,
        untimed=sorted(untimed),
        disk_bytes=disk_bytes(todo, to_train),
    )


def _table(outlook: _Outlook) -> dict[str, Any]:
    """The plan as `--json` prints it."""
    grid = outlook.grid
    return {
        "suite": grid.suite.name,
        "cells": [
            {"id": cell.id, "label": cell.label, "fit": cell.fit.id, "status": outlook.statuses.get(cell.id)}
            for cell in grid.cells
        ],
        "impossible": [
            {"id": item.cell.id, "label": item.cell.label, "reason": item.reason} for item in grid.impossible
        ],
        "to_do": [cell.id for cell in outlook.todo],
        "fits_to_train": [fit.id for fit in outlook.fits],
        "forwards": outlook.forwards,
        "backwards": outlook.backwards,
        "missing_data": outlook.absent_data,
        "missing_weights": outlook.absent_weights,
        "work_seconds": outlook.seconds,
        "work_seconds_unknown_for": outlook.untimed,
        "disk_bytes": outlook.disk_bytes,
    }


def _show_cells(outlook: _Outlook, every: bool) -> None:
    rows = rows_of(outlook.grid, outlook.statuses, {cell.id for cell in outlook.todo})
    if sys.stdout.isatty() and len(rows) > _ROWS and not every:
        out(summary(rows, shutil.get_terminal_size().columns))
        err("apd-bench plan --all lists every cell.")
    else:
        out(whole(rows))


def _estimate(outlook: _Outlook) -> Iterator[str]:
    """What is to do, what is missing for it and what it costs, in lines."""
    grid, todo = outlook.grid, outlook.todo
    yield (
        f"{len(grid.cells)} cells: {len(grid.cells) - len(todo)} need nothing, {len(todo)} to measure; "
        f"{len(grid.impossible)} impossible. {len(outlook.fits)} of {len(grid.fits)} fits to train."
    )
    for kind, absent in (("data", outlook.absent_data), ("weights", outlook.absent_weights)):
        for name, reason in absent.items():
            yield f"missing {kind}: {name}: {reason}"
    yield (
        f"At most {outlook.forwards:,.0f} forward and {outlook.backwards:,.0f} backward image passes, "
        "if every sample resists."
    )
    if todo and outlook.speeds:
        source = ", ".join(sorted({speed.source for speed in outlook.speeds.values()}))
        yield (
            f"That is at most {duration(outlook.seconds)} of work for one process, by {source}; "
            f"{outlook.disk_bytes / 1e6:,.1f} MB on disk."
        )
    for name in dict.fromkeys(c.fit.method.name for c in todo if c.fit.method.learner in BY_IMAGE):
        yield f"{name} runs the text tower for every image and class too, which no count or timing here includes."
    for name in outlook.untimed:
        yield f"No timing of {name} on this machine yet: add --calibrate to measure it for some seconds."


def _speeds(
    options: RunOptions, precision: str, store: Store, backbones: Mapping[str, BackboneSpec]
) -> dict[str, Speed]:
    """The speed of each backbone of the plan: a calibration where asked for or kept, else the stored records.

    On a GPU that is named, the estimate for it.
    """
    if options.gpu is not None:
        guesses = {name: estimated(spec, options.gpu, precision) for name, spec in backbones.items()}
        return {name: speed for name, speed in guesses.items() if speed is not None}
    device = options.device or device_here()
    found = speeds_of(islice(store.records(), _RECORDS_TIMED), device) if backbones else {}
    speeds = {name: found[name] for name in backbones if name in found}
    for name, spec in backbones.items():
        speed = calibrate(spec, device) if options.calibrate else calibrated(spec, device)
        if speed is not None:
            speeds[name] = speed
    return speeds
