"""`apd-bench compare A B`: two methods on the same samples, from stored records."""

import argparse
import dataclasses
from pathlib import Path

from apd_bench.cli.arguments import canonical_or_recorded
from apd_bench.cli.console import out, out_json
from apd_bench.core.errors import EXIT_DONE
from apd_bench.core.registry import METHODS
from apd_bench.core.text import plain
from apd_bench.leaderboard.boards import collect
from apd_bench.leaderboard.comparison import Comparison, Contest, compare_methods, heads
from apd_bench.leaderboard.terminal import render_grid
from apd_bench.leaderboard.wording import heading

EXAMPLES = """examples:
  apd-bench compare apd advtp                    on the same samples
  apd-bench compare apd zero_shot --samples 50   more of those that differ
  apd-bench compare apd advtp --results mine/ theirs/ --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", help="a method with records")
    parser.add_argument("second", metavar="B", help="another one")
    parser.add_argument("--results", nargs="+", action="extend", type=Path, default=[Path("results")], metavar="STORE")
    parser.add_argument("--samples", type=int, default=10, metavar="N", help="samples to list per table (default: 10)")
    parser.add_argument("--json", action="store_true", help="everything as JSON")


def execute(args: argparse.Namespace) -> int:
    """Prints the comparison of every table that holds both methods."""
    tables = collect(args.results).tables
    known = {row.method for table in tables for row in table.rows}
    first, second = (
        name if name in known else canonical_or_recorded(METHODS, name) for name in (args.first, args.second)
    )
    found = compare_methods(tables, first, second)
    if args.json:
        out_json([_plain(item) for item in found])
        return EXIT_DONE
    for item in found:
        _show(item, args.samples)
    out("\n".join(_LEGEND))
    return EXIT_DONE


_LEGEND = (
    "Numbers are percent of samples that are right: clean without attack, worst under every attack. difference: the "
    "first less the second, in points, with its paired 95 % interval.",
    "wins, losses: (sample, seed) pairs that only the first, or only the second, gets right, of so many. p: exact "
    "McNemar with one seed, else paired bootstrap; after Holm over the datasets of a column.",
)


def _show(item: Comparison, samples: int) -> None:
    out(plain(f"{item.first} against {item.second}: {heading(item.table)}", 200) + "\n")
    header = heads(item.first, item.second)
    contests = (*item.overall, *(contest for contest in item.contests if contest.column == "worst"))
    render_grid(header, [_cells(contest) for contest in contests], header[:2])
    for note in item.notes:
        out(f"note: {plain(note, 200)}")
    if samples > 0 and item.disagreements:
        shown = item.disagreements[:samples]
        out(f"\n{len(item.disagreements)} samples differ in worst; seeds that withstand, of the first {len(shown)}:\n")
        rows = [[d.dataset, d.sample, f"{d.first}/{d.seeds}", f"{d.second}/{d.seeds}"] for d in shown]
        render_grid(["dataset", "sample", item.first, item.second], rows, ("dataset", "sample"))
    out()


def _cells(contest: Contest) -> list[str]:
    low, high = (100 * (edge or 0.0) for edge in (contest.difference.low, contest.difference.high))
    shares = [f"{100 * contest.first:.1f}", f"{100 * contest.second:.1f}", f"{100 * contest.difference.value:+.1f}"]
    counts = [str(contest.wins), str(contest.losses), str(contest.pairs)]
    place = [contest.dataset or "mean", contest.column]
    return [*place, *shares, f"{low:+.1f} to {high:+.1f}", *counts, f"{contest.adjusted:.3g}"]


def _plain(item: Comparison) -> dict[str, object]:
    return {
        "table": heading(item.table),
        "first": item.first,
        "second": item.second,
        "overall": [dataclasses.asdict(contest) for contest in item.overall],
        "datasets": [dataclasses.asdict(contest) for contest in item.contests],
        "samples": [dataclasses.asdict(sample) for sample in item.disagreements],
        "notes": list(item.notes),
    }
