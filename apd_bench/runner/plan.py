"""From a resolved suite to cells: the crossing, what is impossible and why, and the order of work. Imports no torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from importlib.util import find_spec
from itertools import product

from apd_bench.attacks.parse import parse_attack
from apd_bench.core.errors import UsageError
from apd_bench.core.registry import ATTACKS, BACKBONES, DATASETS, DEFENCES, METHODS
from apd_bench.core.specs import (
    AttackSpec,
    BackboneSpec,
    Cell,
    DatasetSpec,
    DefenceSpec,
    Fit,
    MethodRecipe,
    Suite,
    ThreatModel,
)
from apd_bench.defences.parse import ADAPTIVE, parse_defence
from apd_bench.methods.recipes import suite_recipe
from apd_bench.runner.estimate import images_of
from apd_bench.suites import merge_tables


@dataclass(frozen=True)
class Impossible:
    """A cell that cannot be measured, and the reason."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Plan:
    """All cells of a resolved suite, in the order in which they are best worked on."""

    suite: Suite
    cells: tuple[Cell, ...]
    impossible: tuple[Impossible, ...] = ()

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """Every prompt state that the cells need, once, by its id."""
        return {fit.id: fit for cell in self.cells for fit in fits_of(cell)}


def fits_of(cell: Cell) -> tuple[Fit, ...]:
    """The fits that a cell needs: its own, and for a transfer threat the one whose model makes the examples."""
    source = cell.source
    return (cell.fit,) if source is None or source.id == cell.fit.id else (cell.fit, source)


def plan(suite: Suite) -> Plan:
    """The cells of a suite whose names are resolved (`selection.resolve`); raises UsageError when none is possible."""
    cells: list[Cell] = []
    impossible: list[Impossible] = []
    seen: set[str] = set()
    for cell in _cross(suite):
        if cell.id in seen:  # a method without training gives the same cell for every seed and number of shots
            continue
        seen.add(cell.id)
        reason = why_impossible(cell)
        if reason:
            impossible.append(Impossible(cell, reason))
        else:
            cells.append(cell)
    if not cells and impossible:
        reasons = list(dict.fromkeys(item.reason for item in impossible))
        raise UsageError(f"None of the {len(impossible)} cells can be measured: {'; '.join(reasons[:3])}.")
    return Plan(suite, tuple(cells), tuple(impossible))


def why_impossible(cell: Cell) -> str | None:
    """The reason why this cell cannot be measured, or None."""
    backbone, method = cell.fit.backbone, cell.fit.method
    source = cell.source
    for needed in (method,) if source is None else (method, source.method):
        missing = [need for need in needed.needs if need not in backbone.offers]
        if missing:
            return f"{needed.name} needs {', '.join(missing)}, which {backbone.name} does not offer"
    attack = ATTACKS.get(cell.attack.name)
    if cell.threat.norm not in attack.norms:
        return f"{attack.name} does not know the norm {cell.threat.norm} (it knows {', '.join(attack.norms)})"
    if attack.extra and find_spec(attack.extra) is None:
        return f"{attack.name} needs an extra package: pip install 'apd-bench[{attack.extra}]'"
    if cell.defence is not None and (reason := _why_undefendable(cell, cell.defence)):
        return reason
    if method.trains and cell.fit.dataset.counts.get("train") == 0:
        return f"{cell.fit.dataset.name} has no training images, and {method.name} trains"
    if cell.split != "test" and cell.dataset.counts and not images_of(cell):
        return f"{cell.dataset.name} has no {cell.split} images"
    if cell.classes != "all" and (cell.dataset.num_classes or 2) < 2:
        return f"{cell.dataset.name} has too few classes to split into base and new"
    return None


def _why_undefendable(cell: Cell, defence: DefenceSpec) -> str | None:
    """The reason why this cell's model cannot be defended so, or None."""
    backbone, method = cell.fit.backbone, cell.fit.method
    if cell.precision != "fp32":
        return f"defences are attacked in float32, not in {cell.precision}"
    for need in DEFENCES.get(defence.name).needs:
        if need not in backbone.offers:
            return f"{defence.name} needs {need}, which {backbone.name} does not offer"
        if need == "visual_tokens" and need not in method.needs:
            return f"{defence.name} needs visual prompts, which {method.name} does not learn"
    return None


def _cross(suite: Suite) -> Iterator[Cell]:
    recipe_of = _recipes_of(suite)
    methods = dict.fromkeys((*suite.reference, *suite.methods))
    pairs = list(_attacked(suite))
    backbones = [BACKBONES.get(name) for name in suite.backbones]
    datasets = [DATASETS.get(name) for name in suite.datasets]
    parts = ("base", "new") if suite.task == "base_to_new" else ("all",)
    transfer = [METHODS.canonical(suite.transfer_source)] if suite.transfer_source else []

    @cache
    def threat(eps: float, knowledge: str, source: str | None) -> ThreatModel:
        return ThreatModel(eps=eps, norm=suite.norm, knowledge=knowledge, source=source)

    for backbone, dataset, method in product(backbones, datasets, methods):
        fits: dict[str, Fit] = {}
        home = suite.train_dataset if suite.task == "cross_dataset" else dataset.name
        for eps, shots, seed in product(suite.eps, suite.shots, suite.seeds):
            recipes = [recipe_of(name, home or dataset.name, shots) for name in (method, *transfer)]
            made = (_fit(suite, recipe, backbone, dataset, home, eps, shots, seed) for recipe in recipes)
            fit, *sources = (fits.setdefault(item.id, item) for item in made)
            source = sources[0] if sources else None
            made_from = source.method.name if source is not None else None
            for (defence, attack), part in product(pairs, parts):
                knowledge = suite.knowledge if defence is None or attack.name == ADAPTIVE else "undefended"
                yield Cell(
                    fit=fit,
                    dataset=dataset,
                    threat=threat(eps, knowledge, made_from),
                    attack=attack,
                    task=suite.task,
                    classes=part,
                    split=suite.split,
                    limit=suite.limit,
                    precision=suite.precision,
                    resize=None if suite.test_resize == fit.resize else suite.test_resize,
                    source=source,
                    defence=defence,
                )


def _attacked(suite: Suite) -> Iterator[tuple[DefenceSpec | None, AttackSpec]]:
    """Every defence of the suite, and none, with the attacks on it: the adaptive one is for defences alone."""
    attacks = [parse_attack(text) for text in suite.attacks]
    for defence in (None, *map(parse_defence, suite.defences)):
        for attack in attacks:
            if defence is not None or attack.name != ADAPTIVE or not suite.defences:
                yield defence, attack


def _recipes_of(suite: Suite) -> Callable[[str, str, int], MethodRecipe]:
    """What gives the recipe of a method for a training set and shots; fits under the same rules share it."""

    @cache
    def make(method: str, places: tuple[int, ...]) -> MethodRecipe:
        common = reduce(merge_tables, (suite.rules[place]["recipe"] for place in places), suite.recipe)
        return suite_recipe(method, common, suite.recipes)

    def of(method: str, trained_on: str, shots: int) -> MethodRecipe:
        name = trained_on.partition("(")[0].partition("@")[0]  # whatever its split and options
        holds = (name in rule.get("datasets", (name,)) and shots in rule.get("shots", (shots,)) for rule in suite.rules)
        return make(method, tuple(place for place, held in enumerate(holds) if held))

    return of


def _fit(
    suite: Suite, recipe: MethodRecipe, backbone: BackboneSpec, dataset: DatasetSpec, source: str | None, eps: float,
    shots: int, seed: int,
) -> Fit:  # fmt: skip
    if source is None and recipe.trains:
        raise UsageError(
            "A cross-dataset suite needs a training set.", hint="Write train_dataset = 'NAME' in the suite."
        )
    return Fit(
        backbone=backbone,
        method=recipe,
        dataset=DATASETS.get(source) if source and recipe.trains else dataset,
        seed=seed,
        shots=shots,
        classes="base" if suite.task == "base_to_new" and recipe.trains else "all",
        train_eps=training_budget(suite, recipe, eps),
        resize=suite.resize,
    )


def training_budget(suite: Suite, recipe: MethodRecipe, eps: float) -> float | None:
    """The budget of the inner attack: the suite's, else the tested one; None for a method that never attacks.

    The cell at eps 0 (clean accuracy) belongs to the fit of the smallest tested budget above 0.
    """
    if not recipe.inner_attack:
        return None
    if suite.train_eps is not None:
        return suite.train_eps
    if suite.norm != "Linf":
        raise UsageError(
            f"'{recipe.name}' trains against a Linf attack, and an {suite.norm} budget does not say with which budget.",
            hint="Add --set train_eps=2/255.",
        )
    return eps if eps > 0 else min((item for item in suite.eps if item > 0), default=0.0)
