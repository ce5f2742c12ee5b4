"""`apd-bench list`: what there is to choose from, and what has been measured."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from apd_bench.cli.console import err, out, out_json, table
from apd_bench.core.errors import EXIT_DONE, unknown_name
from apd_bench.core.registry import ATTACKS, BACKBONES, DATASETS, METHODS

EXAMPLES = """examples:
  apd-bench list                      how much there is of everything
  apd-bench list methods              names, aliases, titles
  apd-bench list datasets 'o*'        only names that match
  apd-bench list cells --status error what failed
  apd-bench list attacks --json
"""
Row = dict[str, Any]
BUILT_IN = "built-in"
_ALSO = {
    "methods": "NAME(option=value), FILE.py:NAME, a folder of imported prompts (apd-bench import)",
    "datasets": "folder:PATH for images of your own, NAME(template='a photo of a {}.'), FILE.py:NAME",
    "attacks": "NAME(option=value), torchattacks:NAME, FILE.py:NAME",
    "backbones": "ARCHITECTURE/TAG of open_clip, ARCHITECTURE/random, hf-hub:ORG/NAME, local:FILE@ARCHITECTURE, "
    "local:FILE@ARCHITECTURE/TAG for an image tower, FILE.py:NAME",
}
_CELL = 44  # characters of a list in a table; --json has all of it
_ENDLESS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.epilog = EXAMPLES
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"one of: {', '.join(KINDS)}")
    parser.add_argument("pattern", nargs="?", default="*", help="only names that match this wildcard")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="for cells and fits")
    parser.add_argument("--status", choices=("success", "error", "cancelled"), help="only cells of this status")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")


def execute(args: argparse.Namespace) -> int:
    """Prints the rows of one kind, or how many there are of each; a terminal cuts long lines, --json has all."""
    if args.kind is None:
        rows = [{"kind": kind, "number": len(list(make(args)))} for kind, make in KINDS.items()]
    else:
        kind = args.kind if args.kind in KINDS else f"{args.kind}s"
        if kind not in KINDS:
            raise unknown_name("kind", args.kind, KINDS, command="apd-bench list --help")
        rows = [row for row in KINDS[kind](args) if fnmatchcase(str(next(iter(row.values()))), args.pattern)]
    if args.json:
        out_json(rows)
    elif rows:
        plugins = any(row.get("origin", BUILT_IN) != BUILT_IN for row in rows)
        header = tuple(name for name in rows[0] if name != "paper" and (plugins or name != "origin"))
        lines = table([tuple(_text(row[name]) for name in header) for row in rows], header).splitlines()
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _ENDLESS
        out("\n".join(line if len(line) <= width else f"{line[: width - 1]}…" for line in lines))
        if args.kind is not None and kind in _ALSO:
            err(f"Also: {_ALSO[kind]}")
    else:
        err("nothing there")
    return EXIT_DONE


def _methods(args: argparse.Namespace) -> list[Row]:
    return [_entry(item, METHODS.origin(item.name), paper=item.paper) for item in METHODS]


def _attacks(args: argparse.Namespace) -> list[Row]:
    return [
        _entry(item, ATTACKS.origin(item.name), version=item.version, norms=item.norms, kind=item.kind)
        for item in ATTACKS
    ]


def _datasets(args: argparse.Namespace) -> list[Row]:
    return [
        _entry(
            item, DATASETS.origin(item.name), group=item.group, classes=item.num_classes, test=item.counts.get("test")
        )
        for item in DATASETS
    ]


def _backbones(args: argparse.Namespace) -> list[Row]:
    return [
        _entry(item, BACKBONES.origin(item.name), training=item.training, pixels=item.image_size, offers=item.offers)
        for item in BACKBONES
    ]


def _suites(args: argparse.Namespace) -> list[Row]:
    from apd_bench.suites import load_suite, suite_names

    suites = [load_suite(name) for name in suite_names()]
    return [
        {
            "name": item.name,
            "methods": item.methods,
            "datasets": item.datasets,
            "attacks": item.attacks,
            "title": item.title,
        }
        for item in suites
    ]


def _cells(args: argparse.Namespace) -> list[Row]:
    from apd_bench.records.store import Store

    store = Store(args.results)
    rows: list[Row] = []
    for record in store.records():
        if args.status in (None, record.status):
            value = record.metrics.get("robust_accuracy")
            rows.append(
                {
                    "cell": record.id,
                    "status": record.status,
                    "robust": None if value is None else f"{100 * value:.1f}%",
                    "what": record.cell.label,
                }
            )
    for damage in store.damaged():
        err(f"warning: {damage.reason}")
    return rows


def _entry(item: Any, origin: str, **columns: Any) -> Row:
    title = getattr(item, "title", "")
    return {"name": item.name, "aliases": item.aliases, **columns, "origin": origin, "title": title}


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, (list, tuple)):
        whole = ",".join(map(str, value))
        return (whole if len(whole) <= _CELL else f"{len(value)}: {value[0]}, ...") or "-"
    return str(value)


KINDS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "methods": _methods,
    "datasets": _datasets,
    "attacks": _attacks,
    "backbones": _backbones,
    "suites": _suites,
    "cells": _cells,
}
