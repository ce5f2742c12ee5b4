"""What the parts of `apd-bench bench` share: the options of their output, and the checks of their numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apd_bench.cli.console import out
from apd_bench.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from apd_bench.bench.rows import Row


def add_output(parser: argparse.ArgumentParser, quick: str, *, repeats: int | None = 3, device: bool = False) -> None:
    """Declares --quick, --repeats, --device, --json and --markdown."""
    parser.add_argument("--quick", action="store_true", help=quick)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, metavar="N", help=f"timed repeats ({repeats})")
    if device:
        parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table here")


def at_least_one(args: argparse.Namespace, *names: str) -> None:
    """Raises UsageError for an option that was given and is no positive number."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} has to be at least 1, not {value}.")


def whole_numbers(option: str, words: Sequence[str]) -> list[int]:
    """The numbers in words such as "4 32" or "4,32"; raises UsageError for anything else."""
    try:
        numbers = [int(part) for word in words for part in word.split(",") if part]
    except ValueError as error:
        raise UsageError(f"{option} takes whole numbers: {' '.join(words)}.") from error
    if not numbers or min(numbers) < 1:
        raise UsageError(f"{option} takes numbers of 1 or more.")
    return numbers


def finish(args: argparse.Namespace, part: str, rows: Sequence[Row], device: str = "cpu") -> int:
    """Prints the rows and writes the files that were asked for."""
    from apd_bench.bench.rows import document, markdown

    data = document(part, rows, device)
    write(args, f"{data['machine']['machine']}\n\n{markdown(rows)}", data)
    return EXIT_DONE


def write(args: argparse.Namespace, text: str, data: Any) -> None:
    """Prints a table; writes it and its numbers to the files that were asked for."""
    out(text)
    for path, content in ((args.markdown, text), (args.json, json.dumps(data, indent=1, sort_keys=True))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n", encoding="utf-8")
