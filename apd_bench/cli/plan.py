"""`apd-bench plan`: every cell of a run, what is done, what is to do, what is impossible and why."""

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from apd_bench.backbones.present import missing_weights
from apd_bench.cli import arguments
from apd_bench.cli.console import err, out, out_json
from apd_bench.core.errors import EXIT_DONE
from apd_bench.core.options import HOW, WHAT, WHERE, WHICH, RunOptions
from apd_bench.core.specs import BackboneSpec, Cell, Fit
from apd_bench.core.text import cut, table
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

Row = tuple[Cell, str, str]  # "to do", "impossible", "left out" or the status of its record; what it is, and why not
_ROWS = 30  # cells of a plan that a terminal shows one by one
_FIRST = 3  # cells of a larger one that are named for each state
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
    facts = _facts(grid, statuses, todo, to_train, speeds)
    if as_json:
        out_json(facts)
        return EXIT_DONE
    rows = rows_of(grid, statuses, {cell.id for cell in todo})
    if sys.stdout.isatty() and len(rows) > _ROWS and not every:
        out(summary(rows, shutil.get_terminal_size().columns))
        err("apd-bench plan --all lists every cell.")
    else:
        out(whole(rows))
    for damage in store.damaged():
        err(f"warning: {damage.reason}")
    for line in _estimate(grid, todo, facts, speeds):
        err(line)
    return EXIT_DONE


def rows_of(grid: Plan, statuses: Mapping[str, str], wanted: set[str]) -> list[Row]:
    """All cells of a plan, `wanted` being the ids of those that would be worked on; the impossible ones last."""
    planned = [(cell, "to do" if cell.id in wanted else statuses.get(cell.id, "left out")) for cell in grid.cells]
    rows = [(cell, state, cell.label) for cell, state in planned]
    return rows + [(item.cell, "impossible", f"{item.cell.label}: {item.reason}") for item in grid.impossible]


def whole(rows: list[Row]) -> str:
    """Every cell on a line of its own."""
    return table([(cell.id, state, what) for cell, state, what in rows], ("cell", "state", "what"))


def summary(rows: list[Row], width: int) -> str:
    """Counts by method and set, then the first cells of each state; no line is longer than `width`."""
    lines = [*_counts(rows, width), ""]
    for state, number in Counter(state for _, state, _ in rows).items():
        first = [f"  {cell.id}  {what}" for cell, at, what in rows if at == state][:_FIRST]
        lines += [f"{state}: {number}" + (f", the first {len(first)}" if number > len(first) else ""), *first]
    return "\n".join(cut(line, width) for line in lines)


def _counts(rows: list[Row], width: int) -> list[str]:
    """A table of "done of planned": methods by sets, or where that is too wide, methods alone and sets alone."""
    several = len({cell.fit.backbone.name for cell, _, _ in rows}) > 1
    done: Counter[tuple[str, str]] = Counter()
    planned: Counter[tuple[str, str]] = Counter()
    for cell, state, _ in rows:
        method = cell.fit.method.name + (f" {cell.fit.backbone.name}" if several else "")
        for key in ((method, cell.dataset.name), (method, ""), ("", cell.dataset.name)):
            planned[key] += state != "impossible"
            done[key] += state == "success"

    def text(key: tuple[str, str]) -> str:
        return f"{done[key]}/{planned[key]}" if planned[key] else "-"

    methods = list(dict.fromkeys(method for method, _ in planned if method))
    sets = list(dict.fromkeys(name for _, name in planned if name))
    matrix = table([(method, *(text((method, name)) for name in sets)) for method in methods], ("done of", *sets))
    lines = matrix.splitlines()
    if max(map(len, lines)) <= width:
        return lines
    by_method = table([(method, text((method, ""))) for method in methods], ("method", "done of"))
    by_set = table([(name, text(("", name))) for name in sets], ("set", "done of"))
    return [*by_method.splitlines(), "", *by_set.splitlines()]


def _facts(
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
        "impossible": [{"id": one.cell.id, "label": one.cell.label, "reason": one.reason} for one in grid.impossible],
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


def _estimate(grid: Plan, todo: list[Cell], facts: Mapping[str, Any], speeds: Mapping[str, Speed]) -> Iterator[str]:
    """What is to do, what is missing for it and what it costs, in lines."""
    trained = sum(fit.method.trains for fit in grid.fits.values())
    yield (
        f"{len(grid.cells)} cells: {len(grid.cells) - len(todo)} need nothing, {len(todo)} to measure; "
        f"{len(grid.impossible)} impossible. {len(facts['fits_to_train'])} of {trained} fits to train."
    )
    for kind in ("data", "weights"):
        for name, reason in facts[f"missing_{kind}"].items():
            yield f"missing {kind}: {name}: {reason}"
    yield (
        f"At most {facts['forwards']:,.0f} forward and {facts['backwards']:,.0f} backward image passes, "
        "if every sample resists."
    )
    if todo and speeds:
        source = ", ".join(sorted({speed.source for speed in speeds.values()}))
        yield (
            f"That is at most {duration(facts['work_seconds'])} of work for one process, by {source}; "
            f"{facts['disk_bytes'] / 1e6:,.1f} MB on disk."
        )
    for name in dict.fromkeys(c.fit.method.name for c in todo if c.fit.method.learner in BY_IMAGE):
        yield f"{name} runs the text tower for every image and class too, which no count or timing here includes."
    for name in facts["work_seconds_unknown_for"]:
        yield f"No timing of {name} on this machine yet: add --calibrate to measure it for some seconds."


def _speeds(options: RunOptions, precision: str, store: Store, backbones: dict[str, BackboneSpec]) -> dict[str, Speed]:
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
