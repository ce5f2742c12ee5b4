"""`apd-bench published`: numbers from the literature with their source and protocol."""

import argparse
import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Sequence

from apd_bench.cli.console import out, out_json
from apd_bench.core.errors import EXIT_DONE
from apd_bench.leaderboard import published
from apd_bench.leaderboard.escape import markdown_text
from apd_bench.leaderboard.markdown import grid
from apd_bench.leaderboard.published import Published

EXAMPLES = """examples:
  apd-bench published                                  which sources and tables there are
  apd-bench published --source FAP --table "Table 15" --shots 16
  apd-bench published --method FAP --dataset eurosat
  apd-bench published --source TAPT --format csv
"""
_FILTERS = ("source", "table", "task", "metric", "attack", "backbone", "shots", "stat", "method", "dataset")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    for name in _FILTERS:
        parser.add_argument(f"--{name}", metavar="TEXT", help=f"only numbers of this {name}")
    parser.add_argument("--format", choices=("text", "md", "csv", "json"), default="text", help="default: text")


def execute(args: argparse.Namespace) -> int:
    """Prints the chosen numbers, or the list of tables when nothing is chosen."""
    wanted = {name: getattr(args, name) for name in _FILTERS}
    if args.format == "text" and not any(wanted.values()):
        return _overview()
    items = published.select(**wanted)
    header, body = published.pivot(items)
    if args.format == "json":
        out_json([dataclasses.asdict(item) for item in items])
    elif args.format == "csv":
        csv.writer(text := io.StringIO(), lineterminator="\n").writerows([header, *body])
        out(text.getvalue().rstrip("\n"))
    else:
        lines = grid(
            [markdown_text(name) for name in header], ([markdown_text(value) for value in line] for line in body)
        )
        out("\n".join([*lines, "", *_notes(items)]))
    return EXIT_DONE


def _overview() -> int:
    counts = Counter((item.source, item.table) for item in published.load_published())
    for (source, table), count in counts.items():
        about = published.about(source, table)
        out(f"{source:20}  {table:14}  {count:4} numbers  {about.get('about', '')}".rstrip())
    out("Print one: apd-bench published --source FAP --table 'Table 15'")
    return EXIT_DONE


def _notes(items: Sequence[Published]) -> list[str]:
    lines: list[str] = []
    for source, table in dict.fromkeys((item.source, item.table) for item in items):
        about = published.about(source, table)
        lines.append(f"{source}, {table}: {about.get('about', '')} ({about.get('title', '')}).")
        lines += [f"  {note}" for note in about.get("notes", [])]
        if "why_not" in about:
            lines.append(f"  Never compared with measured numbers: {about['why_not']}.")
    return lines
