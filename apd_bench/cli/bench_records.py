"""`apd-bench bench attacks --records DIR`: the suites against the verdicts of AutoAttack that are stored there."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from apd_bench.bench.rows import machine
from apd_bench.cli import bench_attacks
from apd_bench.cli.bench_output import listed
from apd_bench.cli.console import err
from apd_bench.errors import EXIT_DONE, MissingPrerequisite, UsageError, UserError
from apd_bench.specs import format_eps, parse_eps

if TYPE_CHECKING:
    from apd_bench.records import Record
    from apd_bench.store import Store

WITHOUT_MEANING = ("limit", "steps", "batch", "repeats", "quick")  # the records say what is measured, and it is once
OPTIONS = {"models": "--backbone", "datasets": "--datasets", "eps": "--eps"}  # here: of the run that makes records
Chosen = Mapping[str, Sequence[str]]


def compare(args: argparse.Namespace, suites: Sequence[str]) -> int:
    """Prints the table of the records that --models, --datasets and --eps leave."""
    for name in WITHOUT_MEANING:
        if getattr(args, name):
            variable = f"APD_BENCH_{name.upper()}"
            asked = f"--{name} (from {variable})" if variable in os.environ else f"--{name}"
            raise UsageError(
                f"{asked} says nothing about stored records.",
                hint="With --records there are: --models, --datasets, --eps, --attacks, --device.",
            )
    if not suites:
        raise UsageError("--attacks none leaves nothing to compare.", hint="Write --attacks worst,worst.fast")
    if not args.records.is_dir():
        raise MissingPrerequisite(f"There is no folder '{args.records}'.", hint="Records are made by: apd-bench run")
    from apd_bench.bench.stored import against_records, markdown
    from apd_bench.registry import BACKBONES, DATASETS
    from apd_bench.store import Store

    store = Store(args.records)
    chosen = {
        "models": [BACKBONES.canonical(name) for name in listed(args, "models")],
        "datasets": [DATASETS.canonical(name) for name in listed(args, "datasets")],
        "eps": [format_eps(parse_eps(text)) for text in listed(args, "eps")],
    }
    if any(chosen.values()):
        _all_are_there(chosen, store)

    def keep(record: Record) -> bool:
        return _is_chosen(_names(record), chosen)

    rows = against_records(store, suites, keep=keep, device=args.device, tell=err)
    data = {"machine": machine(args.device), "verdicts": [dataclasses.asdict(row) for row in rows]}
    bench_attacks.write(args, markdown(rows), data)
    return EXIT_DONE


def _names(record: Record) -> dict[str, str]:
    cell = record.cell
    return {"models": cell.fit.backbone.name, "datasets": cell.dataset.name, "eps": format_eps(cell.threat.eps)}


def _is_chosen(names: Mapping[str, str], chosen: Chosen) -> bool:
    return all(names[option] in asked for option, asked in chosen.items() if asked)


def _all_are_there(chosen: Chosen, store: Store) -> None:
    """Raises MissingPrerequisite for what no stored verdict has; says nothing of a store without any verdict."""
    from apd_bench.bench.stored import against_records

    held: list[dict[str, str]] = []

    def look(record: Record) -> bool:
        held.append(_names(record))
        return False

    with suppress(UserError):  # what is wrong with the store itself, the comparison says
        against_records(store, (), keep=look)
    if not held:
        return
    for option, asked in chosen.items():
        there = sorted({names[option] for names in held})
        for item in asked:
            if item not in there:
                raise MissingPrerequisite(
                    f"{store.path} holds no verdict of standard AutoAttack for --{option} {item}. Available: "
                    f"{', '.join(there)}.",
                    hint=f"Make some: apd-bench run --attacks autoattack {OPTIONS[option]} {item} "
                    f"--results {store.path}",
                )
    if not any(_is_chosen(names, chosen) for names in held):
        words = " ".join(f"--{option} {','.join(asked)}" for option, asked in chosen.items() if asked)
        raise MissingPrerequisite(
            f"{store.path} holds no verdict of standard AutoAttack for {words} together.",
            hint="Leave one of them out.",
        )
