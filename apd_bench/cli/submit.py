"""`apd-bench submit`: packs results so that somebody else can check them."""

import argparse
from pathlib import Path

from apd_bench.cli import arguments
from apd_bench.cli.arguments import canonical_or_recorded
from apd_bench.cli.console import err, out
from apd_bench.core.errors import EXIT_DONE
from apd_bench.core.registry import METHODS
from apd_bench.records.submission import pack
from apd_bench.runner.selection import split_list

EXAMPLES = """examples:
  apd-bench submit --methods apd --author 'A. Name'   into submission.tar.gz
  apd-bench submit results more/ --card CARD.md --out mine.tar.gz
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_stores(parser)
    parser.add_argument(
        "--methods", nargs="+", action="extend", default=[], metavar="LIST", help="only these (default: all)"
    )
    parser.add_argument("--author", default="", metavar="TEXT", help="who submits")
    parser.add_argument("--card", type=Path, metavar="FILE", help="a text about the method, in Markdown")
    parser.add_argument("--out", type=Path, default=Path("submission.tar.gz"), metavar="FILE")


def execute(args: argparse.Namespace) -> int:
    """Writes the archive and says what is in it."""
    methods = [canonical_or_recorded(METHODS, name) for name in split_list(args.methods)]
    card = args.card.read_text(encoding="utf-8") if args.card else ""
    cells = pack(args.stores or [Path("results")], args.out, methods=methods, author=args.author, card=card)
    out(str(args.out))
    err(f"{cells} cells with their prompt states. Check it: apd-bench verify-submission {args.out}")
    return EXIT_DONE
