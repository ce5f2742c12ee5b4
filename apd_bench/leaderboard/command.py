"""The commands that repeat stored cells: every choice of a cell as options of `apd-bench run`. Imports no torch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from apd_bench.core.errors import UnknownName
from apd_bench.core.specs import Cell, Fit, MethodRecipe, format_eps
from apd_bench.methods.recipes import load_recipe
from apd_bench.methods.tables import INNER_ATTACK, TRAINING

SUITE = "blank"
_AXES = ("datasets", "attacks", "eps", "seeds", "shots")
_SECTIONS = {
    "learner": "learner_options",
    "objective": "objective_options",
    "inner_attack": "inner_attack",
    "training": "training",
}
_UNSAID: Mapping[str, Any] = {**TRAINING, **INNER_ATTACK, "text": ""}  # what a recipe means that does not name one


def crossings(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Few grids that together plan exactly `cells`, each as the options of a run over the suite `blank`.

    The base and the new half of a set are always planned together, so `cells` should hold both.
    """
    installed = cache(_installed)
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        fit, defences = cell.fit, () if cell.defence is None else (cell.defence.label,)
        key = (fit.backbone.name, fit.method.name, cell.limit or 0, defences, tuple(_settings(cell, installed)))
        groups.setdefault(key, []).append(cell)
    return [
        {
            "backbones": (backbone,),
            "methods": (method,),
            **box,
            "defences": defences,
            "limit": limit,
            "settings": (*settings, *budget),
        }
        for (backbone, method, limit, defences, settings), members in groups.items()
        for budget, part in _by_budget(members).items()
        for box in _boxes(part)
    ]


def words(crossing: Mapping[str, Any]) -> list[str]:
    """The command line of one grid, word by word."""
    line = ["apd-bench", "run", "--suite", SUITE, "--backbone", *crossing["backbones"]]
    for name in ("methods", *_AXES, "defences"):
        if crossing[name]:
            line += [f"--{name}", *map(str, crossing[name])]
    line += ["--limit", str(crossing["limit"] or "all")]
    return line + [word for setting in crossing["settings"] for word in ("--set", setting)]


def _by_budget(cells: Sequence[Cell]) -> dict[tuple[str, ...], list[Cell]]:
    """The cells by the setting of their training budget: none where it is the tested one, or where nothing has one."""
    budgets = [next((fit.train_eps for fit in _fits(cell) if fit.train_eps is not None), None) for cell in cells]
    pairs = list(zip(cells, budgets, strict=True))
    one = len({*budgets} - {None}) == 1 and any(budget not in (None, cell.threat.eps) for cell, budget in pairs)
    parts: dict[tuple[str, ...], list[Cell]] = {}
    for cell, budget in pairs:
        tested = cell.threat.norm == "Linf" and budget == cell.threat.eps > 0
        said = budget is not None and (one or not tested)
        parts.setdefault((f"train_eps={_eps(budget or 0.0)}",) if said else (), []).append(cell)
    return parts


def _boxes(cells: Sequence[Cell]) -> list[dict[str, tuple[Any, ...]]]:
    """Grids that hold the places of `cells` and no other: single places, joined along one axis after the other."""
    norm = cells[0].threat.norm
    boxes = [tuple((value,) for value in place) for place in sorted({_place(cell) for cell in cells})]
    for axis in range(len(_AXES)):
        joined: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for box in boxes:
            rest = (*box[:axis], *box[axis + 1 :])
            joined[rest] = (*joined.get(rest, ()), *box[axis])
        boxes = [(*rest[:axis], values, *rest[axis:]) for rest, values in joined.items()]
    return [{**dict(zip(_AXES, box, strict=True)), "eps": tuple(_eps(eps, norm) for eps in box[2])} for box in boxes]


def _place(cell: Cell) -> tuple[Any, ...]:
    """Where a cell is on each of the axes; a method that learns nothing has the seed and shots of its source."""
    drawn = cell.source or cell.fit
    return cell.dataset.name, cell.attack.label, cell.threat.eps, drawn.seed, drawn.shots


def _fits(cell: Cell) -> tuple[Fit, ...]:
    return (cell.fit,) if cell.source is None else (cell.fit, cell.source)


def _settings(cell: Cell, installed: Callable[[str], MethodRecipe | None]) -> Iterator[str]:
    fit, threat = cell.fit, cell.threat
    plain = {
        "norm": (threat.norm, "Linf"),
        "knowledge": (threat.knowledge, "undefended" if threat.knowledge == "undefended" else "white_box"),
        "split": (cell.split, "test"),
        "transfer_source": (threat.source, None),
        "task": (cell.task, "few_shot"),
        "resize": (fit.resize, "crop"),
        "test_resize": (cell.test_resize, fit.resize),
        "precision": (cell.precision, "fp32"),
    }
    yield from (f"{name}={value}" for name, (value, default) in plain.items() if value != default)
    if cell.task == "cross_dataset":
        yield f"train_dataset={fit.dataset.name}"
    for recipe in {item.method.name: item.method for item in _fits(cell)}.values():
        prefix = "" if cell.source is None else f"{recipe.name}."
        yield from (f"{prefix}{setting}" for setting in _differences(recipe, installed(recipe.name)))


def _installed(name: str) -> MethodRecipe | None:
    try:
        return load_recipe(name)
    except UnknownName:
        return None


def _differences(recipe: MethodRecipe, installed: MethodRecipe | None) -> Iterator[str]:
    """The settings that make `recipe` of the installed one; none where no method of that name is installed."""
    for section, field in _SECTIONS.items() if installed else ():
        default: Mapping[str, Any] = getattr(installed, field)
        said = {name: _UNSAID[name] for name in default if name in _UNSAID} | dict(getattr(recipe, field))
        for name, value in sorted(said.items()):
            if name not in default or default[name] != value:
                yield f"{section}.{name}={value}"


def _eps(value: float, norm: str = "Linf") -> str:
    text = format_eps(value, norm)
    return text if "/" in text else repr(value)
