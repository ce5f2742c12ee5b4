"""`apd-bench show`: one thing in full, a stored cell or an entry of a registry."""

import argparse
import json
from pathlib import Path
from typing import Any

from apd_bench.attacks.catalog import UNITS
from apd_bench.cli import arguments
from apd_bench.cli.console import err, out, out_json
from apd_bench.core.errors import EXIT_DONE, UnknownName, UsageError, unknown_name
from apd_bench.core.registry import ATTACKS, BACKBONES, DATASETS, DEFENCES, METHODS, REGISTRIES
from apd_bench.methods.recipes import load_recipe
from apd_bench.records.record import json_form
from apd_bench.records.store import Store
from apd_bench.runner.command import command_for, differences
from apd_bench.suites import load_suite, suite_names

EXAMPLES = """examples:
  apd-bench show 3fa9               the cell or fit whose id starts like this
  apd-bench show 3fa9 --as-command  the command that measures it again
  apd-bench show 3fa9 --samples     what happened to each sample, as CSV
  apd-bench show apd                a method's recipe, with its sources
  apd-bench show pgd                an attack: its options and their units
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="the id of a cell or fit (its start is enough), a method, attack, dataset, ..."
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the folder of records")
    arguments.add_own(parser)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--as-command", action="store_true", help="print the command that repeats the cell")
    choice.add_argument("--samples", action="store_true", help="print the per-sample outcomes as CSV")
    choice.add_argument("--json", action="store_true", help="JSON on standard output")


def execute(args: argparse.Namespace) -> int:
    """Prints a registry entry, a suite, a stored cell or a stored fit."""
    arguments.name_own(args)
    found = None if args.as_command or args.samples else _entry(args.name)
    if found is not None:
        out_json(found) if args.json else out(_lines(found))
        return EXIT_DONE

    store = Store(args.results)
    try:
        record = store.record(store.find(args.name))
    except UnknownName as error:
        fits = store.fit_ids(args.name.lower())
        if len(fits) > 1:
            raise UsageError(f"'{args.name}' could be any of {len(fits)} fits: {', '.join(fits[:8])}.") from error
        if fits:
            return _fit(store, fits[0], args)
        if set(args.name.lower()) <= set("0123456789abcdef"):
            raise
        names = [item for registry in REGISTRIES for item in registry.names()]
        raise unknown_name("name or cell", args.name, names, command="apd-bench list") from error
    if args.as_command:
        out(command_for(record.cell, args.results, record.effective))
        for reason in differences(record.cell):
            err(f"warning: the command measures another cell: {reason}")
    elif args.samples:
        columns = dict(store.outcomes(record.id).columns())
        out(",".join(columns))
        for row in zip(*(column.tolist() for column in columns.values()), strict=True):
            out(",".join(str(int(value)) if isinstance(value, bool) else str(value) for value in row))
    elif args.json:
        out_json(json.loads(record.to_json()))
    else:
        data = json_form(record) | {"cell": record.cell.label}
        failure = data.pop("error") or {}
        trace = failure.pop("traceback", "")
        out("\n".join(filter(None, [_lines({**data, "error": failure}), trace.rstrip()])))
    return EXIT_DONE


def _entry(name: str) -> dict[str, Any] | None:
    for registry in (METHODS, ATTACKS, DEFENCES, DATASETS, BACKBONES):
        try:
            canonical = registry.canonical(name)
        except UsageError:
            continue
        data = {"entry": registry.kind, "origin": registry.origin(canonical), **json_form(registry.get(canonical))}
        if registry is ATTACKS:
            data["units"] = {key: UNITS[key] for key in data["defaults"] if key in UNITS}
        if registry is METHODS:
            data["recipe"] = json_form(load_recipe(canonical))
        return data

    return {"entry": "suite", **json_form(load_suite(name))} if name in suite_names() else None


def _fit(store: Store, fit_id: str, args: argparse.Namespace) -> int:
    """The card of a prompt state; without --json lists in short, and the cells that were measured with it."""
    card = store.card(fit_id)
    if args.as_command or args.samples:
        raise UsageError(f"'{fit_id}' is a fit; commands and samples are those of cells.", hint="See: list cells")
    if args.json:
        out_json(card)
        return EXIT_DONE
    history = card.get("history") or []
    short = {name: f"{len(card[name])}: {card[name][0]}, ..." for name in ("classes", "sample_ids") if card.get(name)}
    cells = [record.id for record in store.records() if record.cell.fit.id == fit_id]
    last = {"epochs": len(history), "last_epoch": history[-1]} if history else {}
    out(_lines({"entry": "fit", **card, **short, "history": None, **last, "cells": cells}))
    return EXIT_DONE


def _lines(data: Any, indent: int = 0) -> str:
    """Nested tables as indented lines."""
    pad = "  " * indent
    lines = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            lines += [f"{pad}{key}:", _lines(value, indent + 1)]
        elif value not in (None, "", [], {}):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"{pad}{key}: {text}")
    return "\n".join(lines)
