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
from apd_bench.leaderboard.escape import markdown_text
from apd_bench.leaderboard.markdown import grid
from apd_bench.leaderboard.wording import heading

EXAMPLES = """examples:
  apd-bench compare apd advtp                     wins, losses, differences with intervals
  apd-bench compare apd zero_shot --samples 50    more of the samples on which they differ
  apd-bench compare apd advtp --results mine/ theirs/ --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
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
        out("\n".join(_lines(item, args.samples)) + "\n")
    return EXIT_DONE


def _lines(item: Comparison, samples: int) -> list[str]:
    first, second = markdown_text(item.first), markdown_text(item.second)
    header = heads(first, second)
    body = [_cells(contest) for contest in (*item.overall, *(c for c in item.contests if c.column == "worst"))]
    left = ("dataset", "column")
    lines = [
        plain(f"{item.first} against {item.second}: {heading(item.table)}", 200),
        "",
        *grid(header, body, left),
        "",
    ]
    lines += [f"wins: (sample, seed) pairs that only {first} gets right. difference: {first} minus {second}, points."]
    lines += [f"note: {plain(note, 200)}" for note in item.notes]
    if samples > 0 and item.disagreements:
        shown = item.disagreements[:samples]
        lines += ["", f"{len(item.disagreements)} samples differ in the worst case; the first {len(shown)}:", ""]
        rows = [
            [markdown_text(d.dataset), markdown_text(d.sample), f"{d.first}/{d.seeds}", f"{d.second}/{d.seeds}"]
            for d in shown
        ]
        lines += grid(["dataset", "sample", f"{first} withstands", f"{second} withstands"], rows, ("dataset", "sample"))
    return lines


def _cells(contest: Contest) -> list[str]:
    low, high = (100 * (edge or 0.0) for edge in (contest.difference.low, contest.difference.high))
    shares = [f"{100 * contest.first:.1f}", f"{100 * contest.second:.1f}", f"{100 * contest.difference.value:+.1f}"]
    counts = [str(contest.wins), str(contest.losses), str(contest.pairs)]
    place = [markdown_text(contest.dataset) or "mean", markdown_text(contest.column)]
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
