"""`apd-bench published`: numbers from the literature with their source and protocol."""

import argparse
import csv
import dataclasses
import io
import sys
from collections import Counter
from collections.abc import Sequence

from apd_bench.cli.console import out, out_json
from apd_bench.core.errors import EXIT_DONE
from apd_bench.leaderboard import published
from apd_bench.leaderboard.published import Published
from apd_bench.leaderboard.terminal import render_grid

EXAMPLES = """examples:
  apd-bench published                             sources and tables
  apd-bench published --source FAP --table "Table 15" --shots 16
  apd-bench published --method FAP --dataset eurosat
  apd-bench published --source TAPT --format csv
"""
_PLACE = ("source", "table", "task", "backbone", "shots", "method", "attack", "eps", "stat")  # of `published.pivot`
_FILTERS = ("source", "table", "task", "metric", "attack", "backbone", "shots", "stat", "method", "dataset")


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
        same = [place for place in range(len(_PLACE)) if len({line[place] for line in body}) == 1]
        if sys.stdout.isatty():  # what all lines share stands above the table
            out(", ".join(f"{header[place]} {body[0][place]}" for place in same) + "\n")
            header, *body = ([cell for place, cell in enumerate(line) if place not in same] for line in [header, *body])
        render_grid(header, body, [name for name in _PLACE if name not in ("shots", "eps")])
        out("\n".join(["", *_notes(items)]))
    return EXIT_DONE


def _overview() -> int:
    counts = Counter((item.source, item.table) for item in published.load_published())
    rows = [[*key, str(count), published.about(*key).get("about", "")] for key, count in counts.items()]
    render_grid(["source", "table", "numbers", "about"], rows, ("source", "table", "about"))
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
