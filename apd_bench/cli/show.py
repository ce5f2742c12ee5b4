"""`apd-bench show`: one thing in full, a stored cell or an entry of a registry."""

import argparse
import json
from pathlib import Path
from typing import Any

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
  apd-bench show 3fa9                       the cell whose id starts like this
  apd-bench show 3fa9 --as-command          the command that measures it again
  apd-bench show 3fa9 --samples             what happened to each sample, as CSV
  apd-bench show apd                        a method's recipe, with the source of every number
  apd-bench show pgd                        an attack and its defaults
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("name", metavar="NAME", help="a cell id (its start is enough), method, attack, dataset, ...")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the folder of records")
    arguments.add_own(parser)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--as-command", action="store_true", help="print the command that repeats the cell")
    choice.add_argument("--samples", action="store_true", help="print the per-sample outcomes as CSV")
    choice.add_argument("--json", action="store_true", help="JSON on standard output")


def execute(args: argparse.Namespace) -> int:
    """Prints a registry entry, a suite or a stored cell."""
    arguments.name_own(args)
    found = None if args.as_command or args.samples else _entry(args.name)
    if found is not None:
        out_json(found) if args.json else out(_lines(found))
        return EXIT_DONE

    store = Store(args.results)
    try:
        record = store.record(store.find(args.name))
    except UnknownName as error:
        if set(args.name.lower()) <= set("0123456789abcdef"):
            raise
        names = [item for registry in REGISTRIES for item in registry.names()]
        raise unknown_name("name or cell", args.name, names, command="apd-bench list") from error
    if args.as_command:
        return _command(record, args.results)
    if args.samples:
        return _samples(store, record.id)
    if args.json:
        out_json(json.loads(record.to_json()))
        return EXIT_DONE

    data = json_form(record)
    failure = data.pop("error") or {}
    trace = failure.pop("traceback", "")
    data["cell"] = record.cell.label
    out(_lines({**data, **({"error": failure} if failure else {})}))
    if trace:
        out(trace.rstrip())
    return EXIT_DONE


def _entry(name: str) -> dict[str, Any] | None:
    for registry in (METHODS, ATTACKS, DEFENCES, DATASETS, BACKBONES):
        try:
            canonical = registry.canonical(name)
        except UsageError:
            continue
        data = {"entry": registry.kind, "origin": registry.origin(canonical), **json_form(registry.get(canonical))}
        if registry is METHODS:
            data["recipe"] = json_form(load_recipe(canonical))
        return data

    return {"entry": "suite", **json_form(load_suite(name))} if name in suite_names() else None


def _command(record: Any, results: Path) -> int:
    out(command_for(record.cell, results, record.effective))
    for reason in differences(record.cell):
        err(f"warning: the command measures another cell: {reason}")
    return EXIT_DONE


def _samples(store: Any, cell_id: str) -> int:
    columns = dict(store.outcomes(cell_id).columns())
    out(",".join(columns))
    for row in zip(*(column.tolist() for column in columns.values()), strict=True):
        out(",".join(str(int(value)) if isinstance(value, bool) else str(value) for value in row))
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
