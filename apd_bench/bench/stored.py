"""Our ordered suites against stored verdicts of standard AutoAttack, sample by sample.

AutoAttack takes seconds a sample on a CPU, a suite a tenth of one: the records of a finished grid are the evidence for
a suite, on every backbone, method, set and budget that they hold, without running AutoAttack again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from apd_bench.attacks.meter import Meter
from apd_bench.attacks.parse import all_options, parse_attack
from apd_bench.attacks.result import AttackResult
from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.load import load
from apd_bench.classifier import Classifier
from apd_bench.data.load import load_dataset
from apd_bench.data.protocols import exclude_samples, limit_split, select_classes
from apd_bench.errors import MissingPrerequisite
from apd_bench.identity import digest
from apd_bench.records import Record
from apd_bench.registry import ATTACKS, resolve_target
from apd_bench.specs import format_eps
from apd_bench.states import load_state, restore
from apd_bench.store import Store
from apd_bench.submission import local_cell


@dataclass(frozen=True)
class Verdicts:
    """One suite against AutoAttack on n samples: who stands, who was broken by one side alone, passes and seconds."""

    backbone: str
    eps: float
    methods: tuple[str, ...]
    attack: str
    n: int
    standing: int
    missed: int
    gained: int
    forwards: int
    backwards: int
    seconds: float
    library_standing: int
    library_forwards: int
    library_backwards: int

    @property
    def difference(self) -> float:
        """The suite's robust accuracy minus AutoAttack's; above 0 the suite is weaker."""
        return (self.standing - self.library_standing) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `difference` for paired proportions (Bonett & Price, JEBS 2012: adjusted Wald).

        It takes the verdicts for independent; those of several methods on the same images are not quite.
        """
        n = self.n + 2
        missed, gained = (self.missed + 1) / n, (self.gained + 1) / n
        middle = missed - gained
        half = 1.96 * math.sqrt((missed + gained - middle**2) / n)
        return middle - half, middle + half

    def plus(self, other: Verdicts) -> Verdicts:
        """Both together."""
        names = (
            "n", "standing", "missed", "gained", "forwards", "backwards", "seconds", "library_standing",
            "library_forwards", "library_backwards",
        )  # fmt: skip
        return replace(
            self,
            methods=tuple(sorted({*self.methods, *other.methods})),
            **{name: getattr(self, name) + getattr(other, name) for name in names},
        )


def _quiet(message: str) -> None:
    """Says nothing."""


def against_records(
    store: Store,
    attacks: Sequence[str],
    *,
    keep: Callable[[Record], bool] = lambda record: True,
    device: str = "cpu",
    tell: Callable[[str], None] = _quiet,
) -> list[Verdicts]:
    """The rows (backbone, budget, suite) of `attacks` on the cells of `store` that standard AutoAttack has judged.

    Only of those records that `keep` accepts; those whose prompts are not stored, or were trained again since, are left
    out, which `tell` hears.
    Raises MissingPrerequisite when no cell is left.
    """
    rows: dict[tuple[str, float, str], Verdicts] = {}
    models: dict[str, Backbone] = {}
    judged = _judged(store, keep)
    whole = [record for record in judged if store.has_prompts_of(record)]
    if len(whole) < len(judged):
        left = f"{len(judged) - len(whole)} of {len(judged)} cells are left out"
        tell(f"{left}: their prompts are not stored, or were trained again since")
    for record in whole:
        name = record.cell.fit.backbone.name
        if name not in models:
            models = {name: load(local_cell(record.cell).fit.backbone, device)}
        for verdicts in _compare(store, record, attacks, models[name]):
            key = (name, verdicts.eps, verdicts.attack)
            rows[key] = rows[key].plus(verdicts) if key in rows else verdicts
    if not rows:
        raise MissingPrerequisite(
            f"{store.path} holds no cell of standard AutoAttack{' with its prompts' if judged else ''}.",
            hint="Make some: apd-bench run --attacks autoattack",
        )
    return [rows[key] for key in sorted(rows, key=lambda key: (key[0], key[1], attacks.index(key[2])))]


def _judged(store: Store, keep: Callable[[Record], bool]) -> list[Record]:
    """The records of the plain path, in float32; of cells that differ in the number of samples, the largest."""
    largest: dict[str, Record] = {}
    for record in store.records():
        if _is_plain(record) and keep(record):
            key = digest(replace(record.cell, limit=None))
            known = largest.setdefault(key, record)
            largest[key] = max(known, record, key=lambda item: float(item.metrics.get("n", 0)))
    return sorted(largest.values(), key=lambda record: (record.cell.fit.backbone.name, record.id))


def _is_plain(record: Record) -> bool:
    """Whether every sample was judged, and attacked, by standard AutoAttack itself."""
    return (
        record.status == "success"
        and record.cell.attack.label == "autoattack"
        and record.cell.threat.norm == "Linf"
        and record.cell.threat.knowledge == "white_box"
        and record.cell.precision == "fp32"
    )


def _compare(store: Store, record: Record, attacks: Sequence[str], backbone: Backbone) -> Iterable[Verdicts]:
    cell = local_cell(record.cell)
    data = load_dataset(cell.dataset, image_size=backbone.shapes.image_size, resize=cell.fit.resize)
    data = select_classes(exclude_samples(data, cell.exclude), cell.classes)
    learner = restore(load_state(store.fit_path(cell.fit.id)), backbone, data.classes, data.template)
    classifier = Classifier.from_learner(backbone, learner, precision=cell.precision)
    test = limit_split(data.split(cell.split), cell.limit)
    stored = store.outcomes(record.id, record)
    rows = {name: place for place, name in enumerate(stored.sample_id.tolist())}
    library = torch.as_tensor(stored.broken[[rows[name] for name in test.ids]], dtype=torch.bool)
    pixels = test.pixels(range(len(test))).to(backbone.device)
    for text in attacks:
        spec = parse_attack(text)
        function = cast("Callable[..., AttackResult]", resolve_target(ATTACKS.get(spec.name).target))
        began = time.perf_counter()
        found = function(
            Meter(classifier), pixels, test.labels.to(backbone.device), cell.threat, sample_ids=test.ids,
            seed=cell.attack_seed, **all_options(spec),
        )  # fmt: skip
        broken: Tensor = found.broken.cpu()
        yield Verdicts(
            backbone=backbone.spec.name,
            eps=cell.threat.eps,
            methods=(cell.fit.method.name,),
            attack=text,
            n=len(test),
            standing=int((~broken).sum()),
            missed=int((library & ~broken).sum()),
            gained=int((broken & ~library).sum()),
            forwards=found.forwards,
            backwards=found.backwards,
            seconds=time.perf_counter() - began,
            library_standing=int((~library).sum()),
            library_forwards=int(record.timing["forwards"]),
            library_backwards=int(record.timing["backwards"]),
        )


HEADER = (
    "model", "eps", "methods", "samples", "suite", "robust accuracy, %", "AutoAttack's", "difference, points (95 %)",
    "missed", "gained", "forwards / image", "backwards / image", "AutoAttack's", "seconds",
)  # fmt: skip


def markdown(rows: Sequence[Verdicts]) -> str:
    """The rows as a table, and below it each suite over all of them."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER), *(_line(row) for row in rows)]
    total: dict[str, Verdicts] = {}
    for row in rows:
        total[row.attack] = total[row.attack].plus(row) if row.attack in total else row
    if len(rows) > len(total):
        lines += [_line(row, together=True) for row in total.values()]
    return "\n".join(lines)


def _line(row: Verdicts, *, together: bool = False) -> str:
    n = row.n
    cells = [
        "all" if together else row.backbone,
        "all" if together else format_eps(row.eps),
        ", ".join(row.methods),
        str(n),
        row.attack,
        f"{100 * row.standing / n:.2f}",
        f"{100 * row.library_standing / n:.2f}",
        f"{100 * row.difference:+.2f} ({' to '.join(f'{100 * edge:+.2f}' for edge in row.interval)})",
        str(row.missed),
        str(row.gained),
        f"{row.forwards / n:.1f}",
        f"{row.backwards / n:.1f}",
        f"{row.library_forwards / n:.0f} / {row.library_backwards / n:.0f}",
        f"{row.seconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |"
