"""`apd-bench fit`: trains the prompts that a run needs and attacks nothing."""

import argparse

from apd_bench.cli import arguments
from apd_bench.cli.console import err, out
from apd_bench.cli.run import impossible_lines
from apd_bench.core.options import DISPLAY, HOW, WHAT, WHERE, WHICH, RunOptions
from apd_bench.records.store import Store
from apd_bench.runner.session import make_reporter, plan_of, run_plan

EXAMPLES = """examples:
  apd-bench fit --methods apd --datasets all       `apd-bench run` attacks later
  apd-bench fit --methods apd --seeds 1-3 --force  train again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.declare(
        parser, WHAT, WHERE, WHICH, HOW, DISPLAY,
        without=("boards", "missing", "failed", "cached_only", "dry_run", "shard", "calibrate"),
    )  # fmt: skip


def execute(args: argparse.Namespace) -> int:
    """Trains, and prints the folder of each prompt state to standard output."""
    options: RunOptions = args.options
    grid = plan_of(options)
    for line in impossible_lines(grid.impossible):
        err(line)
    store = Store(options.store)
    strategy = "force" if options.force else "unfinished"
    report = run_plan(grid, store, options, make_reporter(options), strategy=strategy, only_fits=True)
    for fit_id, fit in grid.fits.items():
        if fit_id not in report.failures and store.fit_path(fit_id).is_dir():
            out(f"{store.fit_path(fit_id)}\t{fit.label}")
    return report.exit_code
