"""`apd-bench examples`: pictures of attacked images for the web page."""

import argparse
from pathlib import Path

from apd_bench.cli.console import out
from apd_bench.cli.report import add_filters, view_of
from apd_bench.core.errors import EXIT_DONE, MissingPrerequisite
from apd_bench.leaderboard.tidy import measurement
from apd_bench.records.store import Store
from apd_bench.records.submission import local_cell

EXAMPLES = """examples:
  apd-bench examples --methods apd,zero_shot --attacks pgd   three a dataset
  apd-bench report results --board board.html                the page has them
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", nargs="?", type=Path, default=Path("results"), metavar="STORE", help="records")
    parser.add_argument("--count", type=int, default=3, metavar="N", help="images per cell (default: 3)")
    parser.add_argument("--device", default="cpu", metavar="NAME")
    add_filters(parser)


def execute(args: argparse.Namespace) -> int:
    """Writes the pictures of the finished cells that the filters choose."""
    from apd_bench.runner.examples import make_examples

    store, view = Store(args.store), view_of(args)
    chosen = []
    for record in store.records():
        item = measurement(record, None)
        bare = record.done and record.cell.defence is None  # else the pictures would show the model without it
        if bare and view.wants(item) and (not view.attacks or item.attack in view.attacks):
            chosen.append(local_cell(record.cell))
    if not chosen:
        raise MissingPrerequisite(f"No finished cell in {args.store} is chosen.", hint="See: apd-bench report")
    for path in make_examples(store, chosen, args.count, args.device):
        out(str(path))
    return EXIT_DONE
