"""The command that repeats one stored cell, and whether it still would. Imports no torch."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apd_bench.core.cache import recall
from apd_bench.core.errors import UnknownName
from apd_bench.core.identity import digest
from apd_bench.core.options import RunOptions
from apd_bench.core.registry import METHODS
from apd_bench.core.specs import Cell
from apd_bench.leaderboard.command import SUITE, crossings, words
from apd_bench.methods.classes import OBJECTIVES
from apd_bench.prompts.catalog import LEARNERS
from apd_bench.runner.estimate import samples_of
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import resolve
from apd_bench.runner.shards import shards_of
from apd_bench.suites import load_suite

_BUILTIN = {None, *LEARNERS, *OBJECTIVES}


def command_for(cell: Cell, results: Path, effective: Mapping[str, Any] | None = None) -> str:
    """The command line that measures this cell again, in the batches and shards that its record names in `effective`.

    Batches are no part of a cell, but AutoAttack's own noise depends on who is in a batch with whom.
    """
    (crossing,) = crossings([cell])
    crossing["methods"] = tuple(_typed(cell, name) for name in crossing["methods"])
    sizes, effective = list[str](), effective or {}
    if "batch_size" in effective:
        sizes += ["--batch-size", str(effective["batch_size"])]
    if len(shards_of(cell)) != (shards := int(effective.get("shards", 1))):
        sizes += ["--shard", str(-(-samples_of(cell) // shards))]
    return shlex.join([*words(crossing), *sizes, "--results", str(results), "--force"])


def differences(cell: Cell) -> list[str]:
    """Why the command would measure another cell than this one; empty when it is the same."""
    (crossing,) = crossings([cell])
    try:
        cells = plan(resolve(load_suite(SUITE), RunOptions(**crossing))).cells
    except UnknownName as error:
        own = f"; name its code: --methods {_typed(cell, '')}" if cell.fit.method.digest else ""
        return [f"{error.message.rstrip('.')}{own}"]
    if any(item.id == cell.id for item in cells):
        return []
    found = next((item for item in cells if item.classes == cell.classes), None)
    if found is None:
        return ["no such cell is planned"]
    pairs = (
        ("backbone", found.fit.backbone, cell.fit.backbone),
        ("dataset", found.dataset, cell.dataset),
        ("recipe", found.fit.method, cell.fit.method),
        ("attack", found.attack, cell.attack),
    )
    names = [name for name, now, then in pairs if digest(now) != digest(then)]
    return [f"the {name} of this version is not the one of the record" for name in names] or ["the identity differs"]


def _typed(cell: Cell, name: str) -> str:
    """How the method `name` of a cell is typed: for code of its own FILE.py:NAME, as it was last named here."""
    method = cell.fit.method
    if name not in (method.name, "") or not method.digest or {method.learner, method.objective} <= _BUILTIN:
        return name
    head, bracket, options = method.name.partition("(")
    place = METHODS.files.get(head) or recall(f"method {head} {method.digest}")
    return f"{place or 'FILE.py:NAME'}{bracket}{options}"
