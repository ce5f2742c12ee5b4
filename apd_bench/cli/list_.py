"""`apd-bench list`: what there is to choose from, and what has been measured."""

import argparse
import shutil
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from apd_bench.cli.console import err, out, out_json
from apd_bench.core.errors import EXIT_DONE, unknown_name
from apd_bench.core.registry import REGISTRIES
from apd_bench.core.text import cut, table
from apd_bench.records.store import Store
from apd_bench.suites import load_suite, suite_names

EXAMPLES = """examples:
  apd-bench list                       how much there is of everything
  apd-bench list methods               names, aliases, titles
  apd-bench list datasets 'o*'         only names that match
  apd-bench list cells --status error  what failed
  apd-bench list fits                  prompts that are trained
  apd-bench list attacks --json
"""
_Listed = dict[str, Any]
BUILT_IN = "built-in"
_ALSO = {
    "methods": "NAME(option=value), FILE.py:NAME, a folder of imported prompts (apd-bench import)",
    "datasets": "folder:PATH for images of your own, NAME(template='a photo of a {}.'), FILE.py:NAME",
    "attacks": "NAME(option=value), torchattacks:NAME, FILE.py:NAME",
    "defences": "NAME(option=value), FILE.py:NAME",
    "backbones": "ARCHITECTURE/TAG of open_clip, ARCHITECTURE/random, hf-hub:ORG/NAME, local:FILE@ARCHITECTURE, "
    "local:FILE@ARCHITECTURE/TAG for an image tower, FILE.py:NAME",
}
_COLUMNS: dict[str, Callable[[Any], _Listed]] = {  # of the registries, beside name, aliases, origin and title
    "methods": lambda item: {"paper": item.paper},
    "datasets": lambda item: {"group": item.group, "classes": item.num_classes, "test": item.counts.get("test")},
    "attacks": lambda item: {"version": item.version, "norms": item.norms, "kind": item.kind},
    "defences": lambda item: {"version": item.version, "needs": item.needs, "paper": item.paper},
    "backbones": lambda item: {"training": item.training, "pixels": item.image_size, "offers": item.offers},
}
KINDS = (*_COLUMNS, "suites", "cells", "fits")
_CELL = 44  # characters of a list in a table; --json has all of it
_ENDLESS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"one of: {', '.join(KINDS)}")
    parser.add_argument("pattern", nargs="?", default="*", help="only names that match this wildcard")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="for cells and fits")
    parser.add_argument("--status", choices=("success", "error", "cancelled"), help="only cells of this status")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")


def execute(args: argparse.Namespace) -> int:
    """Prints the rows of one kind, or how many there are of each; a terminal cuts long lines, --json has all."""
    if args.kind is None:
        rows = [{"kind": kind, "number": len(_rows(kind, args))} for kind in KINDS]
    else:
        kind = args.kind if args.kind in KINDS else f"{args.kind}s"
        if kind not in KINDS:
            raise unknown_name("kind", args.kind, KINDS, command="apd-bench list --help")
        rows = [row for row in _rows(kind, args) if fnmatchcase(str(next(iter(row.values()))), args.pattern)]
    if args.json:
        out_json(rows)
    elif rows:
        plugins = any(row.get("origin", BUILT_IN) != BUILT_IN for row in rows)
        header = tuple(name for name in rows[0] if name != "paper" and (plugins or name != "origin"))
        lines = table([tuple(_text(row[name]) for name in header) for row in rows], header).splitlines()
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _ENDLESS
        out("\n".join(cut(line, width) for line in lines))
        if args.kind is not None and kind in _ALSO:
            err(f"Also: {_ALSO[kind]}")
    else:
        err("nothing there")
    return EXIT_DONE


def _rows(kind: str, args: argparse.Namespace) -> list[_Listed]:
    if kind == "cells":
        return _cells(args)
    if kind == "fits":
        return _fits(Store(args.results))
    if kind == "suites":
        columns = ("name", "title", "methods", "datasets", "attacks")
        return [{name: getattr(suite, name) for name in columns} for suite in map(load_suite, suite_names())]
    (registry,) = (item for item in REGISTRIES if kind == f"{item.kind}s")
    return [
        {
            "name": item.name,
            "title": getattr(item, "title", ""),
            "aliases": item.aliases,
            **_COLUMNS[kind](item),
            "origin": registry.origin(item.name),
        }
        for item in registry
    ]


def _cells(args: argparse.Namespace) -> list[_Listed]:
    store = Store(args.results)
    rows: list[_Listed] = []
    for record in store.records():
        if args.status in (None, record.status):
            share = record.metrics.get("robust_accuracy")
            robust = None if share is None else f"{100 * share:.1f}%"
            rows.append({"cell": record.id, "status": record.status, "robust": robust, "what": record.cell.label})
    for damage in store.damaged():
        err(f"warning: {damage.reason}")
    return rows


def _fits(store: Store) -> list[_Listed]:
    columns = ("method", "dataset", "backbone", "shots", "seed", "num_parameters", "seconds")
    rows: list[_Listed] = []
    for fit_id in store.fit_ids():
        card = store.card(fit_id)
        backbone = card.get("backbone")
        card |= {"backbone": backbone.get("name") if isinstance(backbone, dict) else backbone}
        rows.append({"fit": fit_id, **{name: card.get(name) for name in columns}})
    return rows


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, (list, tuple)):
        whole = ",".join(map(str, value))
        return (whole if len(whole) <= _CELL else f"{len(value)}: {value[0]}, ...") or "-"
    return str(value)
