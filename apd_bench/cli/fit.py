"""`apd-bench fit`: trains the prompts that a run needs and attacks nothing."""

from __future__ import annotations

import argparse

from apd_bench.cli import arguments
from apd_bench.cli.console import err, out
from apd_bench.cli.run import impossible_lines

EXAMPLES = """examples:
  apd-bench fit --methods apd --datasets all       train now, `apd-bench run` attacks later
  apd-bench fit --methods apd --seeds 1-3 --force  train again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.epilog = EXAMPLES
    arguments.add_selection(parser)
    arguments.add_places(parser)
    parser.add_argument("--force", action="store_true", help="train even what is trained")
    arguments.add_machine(parser)
    arguments.add_display(parser)


def execute(args: argparse.Namespace) -> int:
    """Trains, and prints the folder of each prompt state to standard output."""
    from apd_bench.runner.displays import make_reporter
    from apd_bench.runner.plan import plan
    from apd_bench.runner.selection import resolve
    from apd_bench.runner.session import run_plan
    from apd_bench.store import Store

    arguments.prepare_environment(args)
    grid = plan(resolve(arguments.suite_of(args), arguments.selection_of(args)))
    for line in impossible_lines(grid.impossible):
        err(line)
    store = Store(args.results)
    reporter = make_reporter("none" if args.quiet else args.display)
    strategy = "force" if args.force else "unfinished"
    report = run_plan(grid, store, arguments.machine_of(args), reporter, strategy=strategy, only_fits=True)
    for fit_id, fit in grid.fits.items():
        if fit_id not in report.failures and store.fit_path(fit_id).is_dir():
            out(f"{store.fit_path(fit_id)}\t{fit.label}")
    return report.exit_code
