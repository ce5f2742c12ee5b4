"""The command that repeats one cell: every choice of a stored cell as options of `apd-bench run`. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apd_bench.errors import UnknownName
from apd_bench.methods.recipes import load_recipe
from apd_bench.runner.estimate import samples_of
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import RECIPE_SECTIONS, Selection, resolve
from apd_bench.runner.shards import shards_of
from apd_bench.specs import Cell, MethodRecipe, format_eps
from apd_bench.suites import load_suite

_SUITE = "blank"


def selection_for(cell: Cell) -> Selection:
    """The selection that, laid over the suite `blank`, plans this cell."""
    fit = cell.fit
    drawn = cell.source or fit  # a method that does not train has no seed of its own
    return Selection(
        backbones=(fit.backbone.name,),
        methods=(fit.method.name,),
        datasets=(cell.dataset.name,),
        attacks=(cell.attack.label,),
        eps=(_eps(cell.threat.eps, cell.threat.norm),),
        seeds=(drawn.seed,),
        shots=(drawn.shots,),
        limit=cell.limit or 0,
        settings=tuple(_settings(cell)),
    )


def command_for(cell: Cell, results: Path, effective: Mapping[str, Any] | None = None) -> str:
    """The command line that measures this cell again, in the batches and shards that its record names in `effective`.

    Batches are no part of a cell, but AutoAttack's own noise depends on who is in a batch with whom.
    """
    chosen = selection_for(cell)
    words = ["apd-bench", "run", "--suite", _SUITE]
    for option, values in (
        ("--backbone", chosen.backbones),
        ("--methods", chosen.methods),
        ("--datasets", chosen.datasets),
        ("--attacks", chosen.attacks),
        ("--eps", chosen.eps),
        ("--seeds", chosen.seeds),
        ("--shots", chosen.shots),
    ):
        words += [option, *map(str, values or ())]
    words += ["--limit", str(cell.limit or "all")]
    for setting in chosen.settings:
        words += ["--set", setting]
    words += _sizes(cell, effective or {})
    words += ["--results", str(results), "--force"]
    return shlex.join(words)


def differences(cell: Cell) -> list[str]:
    """Why the command would measure another cell than this one; empty when it is the same."""
    try:
        cells = plan(resolve(load_suite(_SUITE), selection_for(cell))).cells
    except UnknownName as error:
        return [error.message]
    if any(item.id == cell.id for item in cells):
        return []
    found = next((item for item in cells if item.classes == cell.classes), None)
    if found is None:
        return ["no such cell is planned"]
    pairs = (
        ("backbone", found.fit.backbone.identity(), cell.fit.backbone.identity()),
        ("dataset", found.dataset.identity(), cell.dataset.identity()),
        ("recipe", found.fit.method.identity(), cell.fit.method.identity()),
        ("attack version", found.attack.version, cell.attack.version),
        ("excluded samples", sorted(found.exclude), sorted(cell.exclude)),
    )
    names = [name for name, now, then in pairs if now != then]
    return [f"the {name} of this version is not the one of the record" for name in names] or ["the identity differs"]


def _sizes(cell: Cell, effective: Mapping[str, Any]) -> Iterator[str]:
    if "batch_size" in effective:
        yield from ("--batch-size", str(effective["batch_size"]))
    shards = int(effective.get("shards", 1))
    if len(shards_of(cell)) != shards:
        yield from ("--shard", str(-(-samples_of(cell) // shards)))


def _settings(cell: Cell) -> Iterator[str]:
    fit, threat = cell.fit, cell.threat
    plain = {
        "norm": (threat.norm, "Linf"),
        "knowledge": (threat.knowledge, "white_box"),
        "space": (threat.space, "model_input"),
        "transfer_source": (threat.source, None),
        "task": (cell.task, "few_shot"),
        "resize": (fit.resize, "crop"),
        "test_resize": (cell.test_resize, fit.resize),
        "precision": (cell.precision, "fp32"),
    }
    for name, (value, default) in plain.items():
        if value != default:
            yield f"{name}={value}"
    source = (cell.source,) if cell.source is not None else ()
    for budget in {item.train_eps for item in (fit, *source)} - {None, threat.eps if threat.norm == "Linf" else None}:
        yield f"train_eps={_eps(budget)}"
    if cell.task == "cross_dataset":
        yield f"train_dataset={fit.dataset.name}"
    for recipe in {item.method.name: item.method for item in (fit, *source)}.values():
        yield from _recipe_settings(recipe, f"{recipe.name}." if source else "")


def _recipe_settings(recipe: MethodRecipe, prefix: str) -> Iterator[str]:
    try:
        now = load_recipe(recipe.name)
    except UnknownName:
        return
    for section in RECIPE_SECTIONS:
        mine, default = _section(recipe, section), _section(now, section)
        for name, value in sorted(mine.items()):
            if name not in default or default[name] != value:
                yield f"{prefix}{section}.{name}={value}"


def _section(recipe: MethodRecipe, section: str) -> Mapping[str, Any]:
    options = {
        "learner": recipe.learner_options,
        "objective": recipe.objective_options,
        "inner_attack": recipe.inner_attack,
        "training": recipe.training,
    }[section]
    return options


def _eps(value: float, norm: str = "Linf") -> str:
    text = format_eps(value, norm)
    return text if "/" in text else repr(value)
