"""What a board consists of: tables of rows that may be compared, and the results behind each row."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from apd_bench.core.registry import METHODS
from apd_bench.core.specs import Cell, MethodRecipe, ThreatModel
from apd_bench.leaderboard.statistics import Estimate, harmonic_mean
from apd_bench.methods.entry import MethodEntry

Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Protocol:
    """How the cells of one table were tested; `limit` is the number of test samples per dataset, None for all."""

    split: str
    limit: int | None
    precision: str
    resize: str
    test_resize: str

    @classmethod
    def of(cls, cell: Cell) -> "Protocol":
        """That of one cell."""
        return cls(cell.split, cell.limit, cell.precision, cell.fit.resize, cell.test_resize)


@dataclass(frozen=True)
class TableKey:
    """What all rows of one table share; numbers with different keys are never in one table."""

    group: str
    task: str
    backbone: str
    backbone_key: str
    training: str
    threat: ThreatModel
    shots: int
    trained_on: str
    classes: str
    protocol: Protocol


@dataclass(frozen=True)
class DatasetResult:
    """One method on one dataset, by column ("clean", attacks, "worst"); `hits` are [seeds, samples] by sample id."""

    estimates: Mapping[str, Estimate]
    seeds: tuple[int, ...]
    per_seed: Mapping[str, tuple[float, ...]]
    hits: Mapping[str, Hits] = field(repr=False)


@dataclass(frozen=True)
class Cost:
    """What a row took: seconds of one fit, seconds of all attacks in total and on one sample, passes per sample."""

    train_seconds: float | None
    attack_seconds: float | None
    sample_seconds: float | None
    forwards: float | None
    backwards: float | None


@dataclass(frozen=True)
class Row:
    """One method in one table; `estimates` (means over datasets) is empty unless the row is complete.

    `missing` counts the cells that a dataset lacks, `failed` the cells that ended in each error. A row has several
    recipes where they differ by dataset. `ranks` are the best and the worst rank that it may have, `gain` is its worst
    case less that of zero-shot.
    """

    method: str
    variant: str
    recipes: tuple[MethodRecipe, ...]
    ranks: tuple[int, int] | None
    gain: Estimate | None
    parameters: int | None
    estimates: Mapping[str, Estimate]
    datasets: Mapping[str, DatasetResult]
    distances: Mapping[str, float]
    seeds: tuple[int, ...]
    done: int
    planned: int
    missing: Mapping[str, int]
    failed: Mapping[str, int]
    suspect: Mapping[str, int]
    collapsed: int
    cost: Cost
    train_eps: tuple[float | None, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rank(self) -> int | None:
        """The best rank that it may have."""
        return self.ranks[0] if self.ranks else None

    @property
    def trains(self) -> bool:
        """False for a method that learns nothing."""
        return self.recipes[0].trains

    @property
    def family(self) -> str:
        """What it is trained on, and which tower its prompts are in: "adversarial, both"; "hand-made" for neither."""
        recipe = self.recipes[0]
        if not recipe.trains:
            return "hand-made"
        towers = [
            tower for tower, need in (("text", "text_tokens"), ("image", "visual_tokens")) if need in recipe.needs
        ]
        kind = "adversarial" if recipe.inner_attack else "clean"
        return f"{kind}, {'both' if len(towers) > 1 else ''.join(towers) or 'other'}"

    @property
    def reconstruction(self) -> bool:
        """Whether code and settings of its paper are not public, so that its recipe is our reading.

        Records from before recipes said so are marked as the registered method of their name is.
        """
        known = registered(self.method)
        return bool(known and known.reconstruction) or any(recipe.reconstruction for recipe in self.recipes)

    @property
    def complete(self) -> bool:
        """True when every planned cell is there and comparable."""
        return bool(self.estimates)

    @property
    def harmonic(self) -> float | None:
        """The harmonic mean of clean and worst-case accuracy."""
        return harmonic_mean(self.estimates["clean"].value, self.estimates["worst"].value) if self.estimates else None

    @property
    def samples(self) -> int:
        """The number of different test samples behind the mean."""
        return self.estimates["worst"].n if self.estimates else 0


def registered(method: str) -> MethodEntry | None:
    """The installed method of that name (of `NAME(option=value)`: NAME); None where there is none."""
    name = method.partition("(")[0]
    return METHODS.get(name) if name in METHODS.names() else None


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: same backbone, threat model, protocol, datasets, attacks and seeds.

    `further` tables hold datasets that only a minority of the methods was tried on.
    """

    key: TableKey
    datasets: tuple[str, ...]
    attacks: tuple[str, ...]
    distance_attacks: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    ids: Mapping[str, tuple[str, ...]]
    versions: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    further: bool = False

    @property
    def embedded(self) -> bool:
        """True for the sets and models inside the package."""
        return self.key.group == "embedded"

    @property
    def counts(self) -> dict[str, int]:
        """The number of test samples per dataset."""
        return {name: len(ids) for name, ids in self.ids.items()}

    @property
    def ranked(self) -> tuple[Row, ...]:
        """The complete rows, best worst-case accuracy first."""
        return tuple(row for row in self.rows if row.complete)

    @property
    def incomplete(self) -> tuple[Row, ...]:
        """The other rows, by name."""
        return tuple(row for row in self.rows if not row.complete)
