"""`apd-bench run`: the whole grid, or what is left of it, from planning to the leaderboard."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from apd_bench.cli import arguments
from apd_bench.cli.console import err
from apd_bench.cli.plan import show_plan
from apd_bench.core.options import DISPLAY, HOW, WHAT, WHERE, WHICH, RunOptions
from apd_bench.leaderboard.boards import collect, write_boards
from apd_bench.records.store import Store
from apd_bench.runner.cost import stages_of, summary
from apd_bench.runner.plan import Impossible
from apd_bench.runner.report import RunReport
from apd_bench.runner.session import make_reporter, plan_of, run_plan

EXAMPLES = """examples:
  apd-bench run                                              the embedded suite; the second time it computes nothing
  apd-bench run --methods apd,apt --datasets all             two methods
  apd-bench run --attacks 'pgd(steps=100)' --eps 1/255,4/255 --limit 50
  apd-bench run --set training.epochs=5 --seeds 1-3          another recipe, three seeds
  apd-bench run --failed                                     try again what failed
  apd-bench run --backbone ViT-B-16-quickgelu/openai --datasets caltech101 --data ~/data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    arguments.declare(parser, WHAT, WHERE, WHICH, HOW, DISPLAY)


def execute(args: argparse.Namespace) -> int:
    """Runs, writes the boards, prints table and cost; the exit code says whether every cell is there."""
    options: RunOptions = args.options
    if options.dry_run:
        return show_plan(options)

    grid = plan_of(options)
    for line in impossible_lines(grid.impossible):
        err(line)
    store = Store(options.store)
    report = run_plan(grid, store, options, make_reporter(options), strategy=options.strategy)
    complain(options, report)
    boards = options.boards if options.part is None else None
    written = write_tables(store, boards, {cell.id for cell in grid.cells}, show=options.display != "json")
    if written:
        err(f"Leaderboards: {', '.join(str(path) for path in written)}")
    if options.part is not None:
        err(f"Join the parts with: apd-bench report {options.results}/*-of-{options.part[1]}")
    if options.display != "json" and not options.quiet:
        for line in cost_lines(store, report.computed, report.fits_computed, report.seconds):
            err(line)
    return report.exit_code


def complain(options: RunOptions, report: RunReport) -> None:
    """Says what failed where no display did, and with --verbose the tracebacks."""
    for failure, number in report.messages():
        if options.quiet or options.display == "none":
            err(f"apd-bench: error: {number} cells: {failure.message} {failure.hint}".rstrip())
    if options.verbose:
        for failure, _ in report.messages():
            err(failure.traceback)


def impossible_lines(impossible: Iterable[Impossible]) -> list[str]:
    """One line per reason for which cells were left out."""
    reasons: dict[str, int] = {}
    for item in impossible:
        reasons[item.reason] = reasons.get(item.reason, 0) + 1
    return [f"left out, {number} cells: {reason}" for reason, number in reasons.items()]


def write_tables(store: Store, boards: Path | None, cells: set[str], *, show: bool) -> list[Path]:
    """Writes the leaderboards of the store, then prints the tables of `cells`; nothing while there is no success."""
    statuses = store.statuses()
    if not any(statuses.get(cell) == "success" for cell in cells):
        return []
    shown = collect([store.path], cells)
    if not shown.tables:
        return []
    written = [] if boards is None else write_boards([store.path], boards, ("md", "csv"))
    if show:
        from apd_bench.leaderboard.terminal import render_terminal

        render_terminal(shown)
    return written


def cost_lines(store: Store, computed: list[str], fits: list[str], seconds: float) -> list[str]:
    """What this run cost, or nothing when it computed nothing."""
    if not (computed or fits):
        return []
    return ["", "Cost of this run:", *summary(stages_of(store, map(store.record, computed), fits), seconds)]
