"""`apd-bench report`: stored records in, leaderboards out; needs neither a model nor a GPU."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from apd_bench.errors import EXIT_DONE

EXAMPLES = """examples:
  apd-bench report                         the tables of results/ on the screen
  apd-bench report results --out boards    write boards/*.md and *.csv
  apd-bench report mine/ theirs/           one table from two stores
  apd-bench report results --out leaderboards --check   exit 3 when the files there are out of date
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.epilog = EXAMPLES
    parser.add_argument("stores", nargs="*", type=Path, metavar="STORE", help="folders of records (default: results)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the boards into this folder")
    parser.add_argument("--format", default="md,csv", metavar="LIST", help="file formats, by comma (default: md,csv)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 3 when the files in --out are stale")


def execute(args: argparse.Namespace) -> int:
    """Prints, writes or checks the boards; the exit code says which files are stale by being 3."""
    from rich.console import Console

    from apd_bench.leaderboard import check_boards, collect, render_terminal, write_boards

    stores: list[Path] = args.stores or [Path("results")]
    formats = [name.strip() for name in args.format.split(",") if name.strip()]
    if args.check:
        checked = check_boards(stores, args.out or Path("leaderboards"), formats)
        Console(stderr=True).print(f"{len(checked)} board files are up to date.", highlight=False)
        return EXIT_DONE
    if args.out is not None:
        for path in write_boards(stores, args.out, formats):
            sys.stdout.write(f"{path}\n")
        return EXIT_DONE
    boards = collect(stores)
    if not boards.tables:
        Console(stderr=True).print("There is no finished cell yet: apd-bench run measures some.", highlight=False)
        return EXIT_DONE
    render_terminal(boards)
    return EXIT_DONE
