"""`apd-bench plot`: figures for papers from stored records."""

import argparse
from pathlib import Path

from apd_bench.cli import arguments
from apd_bench.cli.console import out
from apd_bench.cli.report import add_filters, view_of
from apd_bench.core.errors import EXIT_DONE
from apd_bench.leaderboard.boards import collect
from apd_bench.leaderboard.plots import draw

EXAMPLES = """examples:
  apd-bench plot board --eps 3/255     clean and worst of every method
  apd-bench plot eps                   worst against the budget
  apd-bench plot pareto --format svg   clean against worst
  apd-bench plot heatmap --out figures  a cell a method and dataset
  apd-bench plot seeds mine/ theirs/   one point a seed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="FIGURE", help="board, eps, pareto, heatmap or seeds")
    arguments.add_stores(parser)
    parser.add_argument("--format", default="pdf", metavar="NAME", help="pdf, png or svg (default: pdf)")
    parser.add_argument("--out", type=Path, default=Path("plots"), metavar="DIR", help="default: plots")
    add_filters(parser)


def execute(args: argparse.Namespace) -> int:
    """Writes the figures and prints their paths."""
    tables = collect(args.stores or [Path("results")], view=view_of(args)).tables
    for path in draw(args.kind, tables, args.out, args.format):
        out(str(path))
    return EXIT_DONE
