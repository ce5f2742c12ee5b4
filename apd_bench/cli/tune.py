"""`apd-bench tune`: the same number of tries for every method, scored on validation images."""

import argparse

from apd_bench.cli.arguments import declare
from apd_bench.cli.console import err, out
from apd_bench.core.errors import UsageError
from apd_bench.core.options import DISPLAY, HOW, WHAT, WHERE, RunOptions
from apd_bench.core.text import table
from apd_bench.records.store import Store
from apd_bench.runner.session import make_reporter, tell_workers
from apd_bench.suites import load_suite
from apd_bench.tuning.choice import RULES, tuned
from apd_bench.tuning.files import gains, write_files
from apd_bench.tuning.search import search
from apd_bench.tuning.trials import make_tries

FOLDER = "tuning"  # inside the folder of records, so that no table of a run meets a validation cell
MOST = 4096
SHOWN = ("method", "default", "tuned", "gain", "trial")
EXAMPLES = """examples:
  apd-bench tune --methods all --trials 16   16 tries a method, with the recipe
  apd-bench tune --methods all --trials 32   16 more
  apd-bench run --suite results/tuning/tuned.toml   the tuned recipes, attacked

The folder `tuning` inside --results gets the records, trials.csv (the tries
that are done: with this file alone the same command goes on elsewhere),
tuned.toml, tuning.md, gains.csv and curve.csv. What may vary of a method, and
why, is in baselines/<method>/space.toml.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", default=16, metavar="N", help="tries of each method, with the recipe (default: 16)")
    parser.add_argument(
        "--rule", default="harmonic", choices=tuple(RULES),
        help="score of a set from clean and robust accuracy: their harmonic mean (default), mean, or one of them",
    )  # fmt: skip
    declare(parser, WHAT, WHERE, HOW, DISPLAY, without=("boards", "no_reference", "dry_run", "calibrate", "part"))


def execute(args: argparse.Namespace) -> int:
    """Makes the tries that are missing, then writes and prints the tables."""
    options: RunOptions = args.options
    if not str(args.trials).isdecimal() or not 1 <= int(args.trials) <= MOST:
        raise UsageError(
            f"--trials takes a number of 1 to {MOST} tries, not '{args.trials}'.", hint="Write --trials 16."
        )
    tell_workers(options)
    hunt = search(load_suite(options.suite), options, int(args.trials))
    store = Store(options.results / FOLDER)
    code, done = make_tries(hunt, store, options, make_reporter(options))
    results = tuned(done, hunt.suite.methods, args.rule)
    if not all(item.scores for item in results):
        err("No try is finished for all methods on all sets yet; the same command goes on.")
        return code
    rows = gains(results)
    out(table([tuple(str(row[key]) for key in SHOWN) for row in rows], header=SHOWN))
    written = write_files(store.path, load_suite(options.suite), options.suite, hunt, results, args.rule)
    err(f"Written: {', '.join(str(path) for path in written)}")
    return code
