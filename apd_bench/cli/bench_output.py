"""What the parts of `apd-bench bench` share: the options of their output, and the checks of their numbers."""

from __future__ import annotations

import argparse
import errno
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apd_bench.cli.console import out
from apd_bench.errors import EXIT_DONE, MissingPrerequisite, UsageError

if TYPE_CHECKING:
    from apd_bench.bench.rows import Row


def add_output(parser: argparse.ArgumentParser, quick: str, *, repeats: int | None = 3, device: bool = False) -> None:
    """Declares --quick, --repeats, --device, --json and --markdown."""
    # Without a default of its own, which would overwrite a --quick before the part.
    parser.add_argument("--quick", action="store_true", default=argparse.SUPPRESS, help=quick)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, metavar="N", help=f"timed repeats ({repeats})")
    if device:
        parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table here")


def check(args: argparse.Namespace, *numbers: str) -> None:
    """Raises for what would fail after minutes: numbers below 1, a device that is not here, files that cannot be."""
    for name in numbers:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} has to be at least 1, not {value}.")
    if "device" in args:
        from apd_bench.runner.session import pick_device

        pick_device(args.device)
    for option in ("json", "markdown"):
        if getattr(args, option) is not None:
            check_file(getattr(args, option), f"--{option} FILE")


def check_file(path: Path, option: str) -> None:
    """Raises MissingPrerequisite where `path` could not be written; leaves nothing behind."""
    missing: list[Path] = []
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not path.exists() and not path.is_symlink():
            missing += [folder for folder in path.parents if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            path.unlink()
    except OSError as error:
        raise cannot_write(error, path, option) from error
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def cannot_write(error: OSError, path: Path, option: str) -> MissingPrerequisite:
    """The error for a table or numbers that cannot be written."""
    return MissingPrerequisite(f"Cannot write to {path}: {error.strerror}.", hint=f"Choose another place: {option}.")


def listed(args: argparse.Namespace, name: str) -> list[str]:
    """The items of a list, none where it was not given; raises UsageError for a list without any."""
    from apd_bench.runner.selection import split_list

    words = getattr(args, name)
    items = split_list(words or [])
    if words is not None and not items:
        raise UsageError(
            f"--{name} '{' '.join(words)}' names nothing.",
            hint=f"Leave it out for its default; see: apd-bench bench {args.part} --help",
        )
    return items


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
    if args.markdown is not None:
        write_file(args.markdown, text, "--markdown FILE")
    if args.json is not None:
        write_file(args.json, json.dumps(data, indent=1, sort_keys=True), "--json FILE")


def write_file(path: Path, content: str, option: str) -> None:
    """Writes a text and makes its folder; raises MissingPrerequisite, naming the `option`, where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n", encoding="utf-8")
    except OSError as error:
        raise cannot_write(error, path, option) from error
