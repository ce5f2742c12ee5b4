"""`apd-bench report`: stored records in, leaderboards out; needs neither a model nor a GPU."""

import argparse
from pathlib import Path

from apd_bench.attacks.parse import parse_attack
from apd_bench.cli import arguments
from apd_bench.cli.arguments import canonical_or_recorded
from apd_bench.cli.console import err, out
from apd_bench.core.errors import EXIT_DONE, RegressionFound, UsageError, UserError
from apd_bench.core.files import atomic_write
from apd_bench.core.options import Spelling, numbers
from apd_bench.core.registry import BACKBONES, DATASETS, METHODS
from apd_bench.core.specs import NORMS, parse_eps
from apd_bench.leaderboard.boards import View, check_boards, collect, render_one, write_boards
from apd_bench.runner.selection import split_list

EXAMPLES = """examples:
  apd-bench report                              the tables of results/
  apd-bench report results --out boards --format md,csv,json,tex,html
  apd-bench report results --board board.html   one file, its format by suffix
  apd-bench report mine/ theirs/ --methods apd,apt
  apd-bench report results --attacks pgd,cw     further attacks lower the worst
  apd-bench report results --out leaderboards --check   3 when they are stale
"""
_LISTS = ("backbones", "methods", "datasets", "attacks", "eps", "seeds", "shots")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_stores(parser)
    where = parser.add_argument_group("where to")
    where.add_argument("--out", type=Path, metavar="DIR", help="write all boards into this folder")
    where.add_argument("--board", type=Path, metavar="FILE", help="write one board: FILE.md, .csv, .json, .tex, .html")
    where.add_argument("--format", default="md,csv", metavar="LIST", help="for --out: md,csv,json,tex,html")
    where.add_argument("--check", action="store_true", help="write nothing; exit 3 when --out or --board is stale")
    add_filters(parser)


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Declares what chooses among stored records."""
    what = parser.add_argument_group("what (default: everything that is stored)")
    for name in _LISTS:
        what.add_argument(f"--{name}", nargs="+", action="extend", metavar="LIST", help=f"only these {name}")
    what.add_argument("--group", metavar="NAME", help="only this group of datasets: embedded, benchmark, ...")


def execute(args: argparse.Namespace) -> int:
    """Prints, writes or checks the boards; stale files are a RegressionFound, which exits with 3."""
    stores: list[Path] = args.stores or [Path("results")]
    formats = [name.strip() for name in args.format.split(",") if name.strip()]
    view = view_of(args)
    if args.board is not None:
        return _one(args.board, stores, view, check=args.check)
    if args.check:
        checked = check_boards(stores, args.out or Path("leaderboards"), formats, view=view)
        err(f"{len(checked)} board files are up to date.")
    elif args.out is not None:
        for path in write_boards(stores, args.out, formats, view=view):
            out(str(path))
    else:
        boards = collect(stores, view=view)
        if not boards.tables:
            err("No finished cell belongs to this board: apd-bench run measures some.")
        from apd_bench.leaderboard.terminal import render_terminal

        render_terminal(boards)
    return EXIT_DONE


def view_of(args: argparse.Namespace) -> View:
    """What the options ask for; names may be aliases, budgets are written as 4/255 or 0.0157."""
    given = {name: tuple(split_list(getattr(args, name) or [])) for name in _LISTS}
    return View(
        backbones=tuple(canonical_or_recorded(BACKBONES, name) for name in given["backbones"]),
        methods=tuple(canonical_or_recorded(METHODS, name) for name in given["methods"]),
        datasets=tuple(canonical_or_recorded(DATASETS, name) for name in given["datasets"]),
        attacks=tuple(_attack(text) for text in given["attacks"]),
        eps=tuple(pair for text in given["eps"] for pair in _budgets(text)),
        seeds=numbers(0)(given["seeds"], Spelling("--seeds", "--seeds {}")),
        shots=numbers(0, -1)(given["shots"], Spelling("--shots", "--shots {}")),
        groups=(args.group,) if args.group else (),
    )


def _budgets(text: str) -> list[tuple[str, float]]:
    """What a budget is in each norm that has such a one; raises UsageError where none has."""
    found, problems = [], []
    for norm in NORMS:
        try:
            found.append((norm, parse_eps(text, norm)))
        except UsageError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    return found


def _one(path: Path, stores: list[Path], view: View, *, check: bool) -> int:
    content = render_one(collect(stores, view=view), path, stores).encode()
    if not check:
        atomic_write(path, content)
        out(str(path))
    elif not path.is_file() or path.read_bytes() != content:
        raise RegressionFound(f"{path} is stale.", hint="Make it anew with the same command without --check.")
    return EXIT_DONE


def _attack(text: str) -> str:
    try:
        return parse_attack(text).label
    except UserError:
        return text
