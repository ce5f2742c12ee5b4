"""`apd-bench run`: the whole grid, or what is left of it, from planning to the leaderboard."""

import argparse
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from apd_bench.cli import arguments
from apd_bench.cli.console import err
from apd_bench.cli.plan import show_plan
from apd_bench.core.errors import EXIT_INTERRUPTED
from apd_bench.core.options import DISPLAY, HOW, WHAT, WHERE, WHICH, RunOptions
from apd_bench.core.specs import Suite
from apd_bench.leaderboard.boards import collect, write_boards
from apd_bench.leaderboard.model import Table
from apd_bench.records.store import Store
from apd_bench.runner.cost import stages_of, summary
from apd_bench.runner.plan import Impossible, Plan
from apd_bench.runner.report import RunReport
from apd_bench.runner.session import make_reporter, plan_of, run_plan

EXAMPLES = """examples:
  apd-bench run                                  the embedded suite
  apd-bench run --methods apd,apt --datasets all  two methods
  apd-bench run --attacks 'pgd(steps=100)' --eps 1/255,4/255 --limit 50
  apd-bench run --set training.epochs=5 --seeds 1-3
  apd-bench run mine.toml                        a suite of yours: help suites
  apd-bench run --failed                         try again what failed
  apd-bench run --backbone ViT-B-16-quickgelu/openai --datasets caltech101
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.declare(parser, WHAT, WHERE, WHICH, HOW, DISPLAY)


def execute(args: argparse.Namespace) -> int:
    """Runs, writes the boards, prints table and cost; the exit code says whether every cell is there."""
    options: RunOptions = args.options
    if options.dry_run:
        return show_plan(options)

    grid, store, report = carry_out(options)
    tables, written = write_tables(store, options, {cell.id for cell in grid.cells})
    if options.display != "json" and not options.quiet and (report.computed or report.fits_computed):
        stages = stages_of(store, map(store.record, report.computed), report.fits_computed)
        err("\n".join(["", "Cost of this run:", *summary(stages, report.seconds)]))
    for line in next_steps(tables, written, options, finished=report.exit_code != EXIT_INTERRUPTED):
        err(line)
    return report.exit_code


def carry_out(options: RunOptions, suite: Suite | None = None) -> tuple[Plan, Store, RunReport]:
    """Plans and runs what the options (and `suite`) ask for, and says what was left out and what failed."""
    grid, store = plan_of(options, suite), Store(options.store)
    for line in impossible_lines(grid.impossible):
        err(line)
    report = run_plan(grid, store, options, make_reporter(options), strategy=options.strategy)
    for line in report.complaints() if options.quiet or options.display == "none" else ():
        err(f"apd-bench: error: {line}")
    if options.verbose:
        for failure, _ in report.messages():
            err(failure.traceback)
    return grid, store, report


def impossible_lines(impossible: Iterable[Impossible]) -> list[str]:
    """One line per reason for which cells were left out."""
    reasons = Counter(item.reason for item in impossible)
    return [f"left out, {number} cells: {reason}" for reason, number in reasons.items()]


def write_tables(store: Store, options: RunOptions, cells: set[str]) -> tuple[Sequence[Table], list[Path]]:
    """Writes boards and page of the store, then prints the tables of `cells`; nothing while there is no success."""
    statuses = store.statuses()
    if not any(statuses.get(cell) == "success" for cell in cells):
        return (), []
    shown = collect([store.path], cells)
    if not (shown.tables or shown.defences):
        return (), []
    written = [] if options.part is not None else write_boards([store.path], options.boards, ("md", "csv", "html"))
    if options.display != "json":
        from apd_bench.leaderboard.terminal import render_terminal

        render_terminal(shown)
    return shown.tables, written


def next_steps(
    tables: Sequence[Table], written: list[Path], options: RunOptions, *, finished: bool = True
) -> Iterator[str]:
    """Where the boards are, and the command with which one goes on; of an interrupted run, that it goes on."""
    if options.part is not None:
        yield f"Join the parts with: apd-bench report {options.results}/*-of-{options.part[1]}"
        return
    if written:
        yield ""
        yield f"Boards in {options.boards}: {', '.join(path.name for path in written if path.suffix != '.html')}"
        yield f"Page: {', '.join(str(path) for path in written if path.suffix == '.html')}"
    names = max(([row.method for row in table.ranked] for table in tables), key=len, default=[])
    if not finished:
        yield "Next: the same command, which goes on where this one stopped."
    elif len(names) > 1:
        other = "zero_shot" if "zero_shot" in names[1:] else names[1]
        results = [] if options.results == RunOptions().results else ["--results", str(options.results)]
        yield f"Next: {shlex.join(['apd-bench', 'compare', names[0], other, *results])}"
