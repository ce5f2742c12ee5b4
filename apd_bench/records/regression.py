"""Expected outcomes of the reduced grid: integer counts per cell, totals per attack, and training losses per fit.

Counts of correct samples are whole numbers, so a tolerance is a number of samples. Totals over all cells of one attack
have a tighter relative tolerance than single cells: a slightly weakened attack moves every cell the same way. Losses
of the last epoch see what accuracies on few samples cannot, such as a teacher that looks at the wrong image.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.core.files import atomic_write
from apd_bench.core.specs import Cell, Fit, format_eps
from apd_bench.records.record import Record
from apd_bench.records.store import Store

SCHEMA = 1
CELL_TOLERANCE = 1
TOTAL_SHARE = 0.02
LOSS_TOLERANCE = 0.02


@dataclass(frozen=True)
class Expected:
    """An expected number and how far a measured one may lie from it."""

    value: float
    tolerance: float


@dataclass(frozen=True)
class Difference:
    """One quantity that is not as expected; either side is None where it does not exist."""

    where: str
    quantity: str
    expected: Expected | None
    measured: float | None

    @property
    def text(self) -> tuple[str, str, str, str]:
        """Place, quantity, expected and measured value for a table."""
        wanted = "nothing" if self.expected is None else f"{self.expected.value:g} ± {self.expected.tolerance:g}"
        return self.where, self.quantity, wanted, "missing" if self.measured is None else f"{self.measured:.5g}"


@dataclass(frozen=True)
class Counts:
    """What a store holds, by place and quantity: "cell NAME" -> {"n", "clean", "robust"}, "fit NAME" -> losses, ..."""

    places: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    failures: tuple[str, ...] = ()


def load_expected(path: Path) -> dict[str, dict[str, Expected]]:
    """The expectations in `path`; raises MissingPrerequisite when there are none, CorruptFile when unreadable."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']} is not {SCHEMA}")
        return {
            place: {name: Expected(float(value), float(tolerance)) for name, (value, tolerance) in quantities.items()}
            for place, quantities in data["expected"].items()
        }
    except FileNotFoundError as error:
        raise MissingPrerequisite(
            f"There are no expected values in {path}.", hint="Make them: apd-bench verify --update"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(
            f"{path} cannot be read: {error}.", hint="Restore it from version control, or: apd-bench verify --update"
        ) from error


def save_expected(path: Path, suite: str, measured: Counts) -> None:
    """Writes `measured` with its tolerances as the expectations of `suite`."""
    expected = {
        place: {
            name: [_short(value), _short(tolerance_of(place, name, quantities))]
            for name, value in sorted(quantities.items())
        }
        for place, quantities in sorted(measured.places.items())
    }
    meaning = "place -> quantity -> [value, tolerance]; counts are samples, losses are means of the last epoch"
    lines = [f"  {json.dumps(place)}: {json.dumps(values)}" for place, values in expected.items()]
    head = f'{{\n "schema": {SCHEMA},\n "suite": {json.dumps(suite)},\n "meaning": {json.dumps(meaning)},\n'
    atomic_write(path, (head + ' "expected": {\n' + ",\n".join(lines) + "\n }\n}\n").encode())


def tolerance_of(place: str, quantity: str, quantities: Mapping[str, float]) -> float:
    """How far a quantity may move: counts by samples, losses by a share; the number of samples not at all."""
    if quantity == "n":
        return 0
    if place.startswith("fit "):
        return float(f"{max(LOSS_TOLERANCE * abs(quantities[quantity]), 1e-3):.2g}")
    if place.startswith("total "):
        return max(CELL_TOLERANCE, math.ceil(TOTAL_SHARE * quantities["n"]))
    return CELL_TOLERANCE


def measure(store: Store) -> Counts:
    """What the records and fits of `store` hold, in the form of the expectations."""
    places: dict[str, dict[str, float]] = {}
    totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    failures: list[str] = []
    for record in store.records():
        if not record.done:
            failures.append(f"{cell_name(record.cell)}: {(record.error or {}).get('message', record.status)}")
            continue
        outcomes = store.outcomes(record.id, record)
        metrics, n = outcomes.metrics(), len(outcomes)
        clean, robust = round(metrics["clean_accuracy"] * n), round(metrics["robust_accuracy"] * n)
        counts = {"n": float(n), "clean": float(clean), "robust": float(robust)}
        places[f"cell {cell_name(record.cell)}"] = counts
        for name, value in counts.items():
            totals[f"total {record.cell.attack.label}, all methods"][name] += value
            totals[f"total {record.cell.attack.label}, {record.cell.fit.method.name}"][name] += value
        places.update(_losses(store, record))
    places.update({name: dict(values) for name, values in totals.items()})
    return Counts(places, tuple(failures))


def compare(expected: Mapping[str, Mapping[str, Expected]], measured: Counts) -> list[Difference]:
    """All differences beyond tolerance: moved, missing and unexpected quantities, in a fixed order."""
    found: list[Difference] = []
    for place in sorted({*expected, *measured.places}):
        wanted, values = expected.get(place, {}), measured.places.get(place, {})
        for quantity in sorted({*wanted, *values}):
            want, value = wanted.get(quantity), values.get(quantity)
            if want is None or value is None or not abs(value - want.value) <= want.tolerance + 1e-9:  # or NaN
                found.append(Difference(place, quantity, want, value))
    return found


def cell_name(cell: Cell) -> str:
    """A cell by what people call it, so that a changed recipe shows as changed numbers, not as another cell."""
    threat = f"{cell.threat.norm} {format_eps(cell.threat.eps, cell.threat.norm)}"
    return f"{fit_name(cell.fit)} -> {cell.dataset.name}/{cell.classes}, {threat}, {cell.attack.label}"


def fit_name(fit: Fit) -> str:
    """A fit by what people call it."""
    drawn = f"/{fit.classes} {fit.shots}-shot seed {fit.seed}" if fit.method.trains else ""
    return f"{fit.backbone.name} {fit.method.name} {fit.dataset.name}{drawn}"


def _short(value: float) -> float:
    return int(value) if value == int(value) else value


def _losses(store: Store, record: Record) -> dict[str, dict[str, float]]:
    """The loss terms of the last epoch from the card of the record's fit; nothing for methods that do not train."""
    history: Sequence[Any] = store.card(record.cell.fit.id).get("history") or ()
    last = history[-1] if history else {}
    terms = last.get("losses", last) if isinstance(last, Mapping) else {}
    losses = {
        name: float(f"{value:.6g}")
        for name, value in terms.items()
        if isinstance(value, (int, float)) and name not in ("epoch", "lr") and not name.endswith("gradient_norm")
    }
    return {f"fit {fit_name(record.cell.fit)}": losses} if losses and record.cell.fit.method.trains else {}
