"""Our ordered suites against stored verdicts of standard AutoAttack, sample by sample.

AutoAttack takes seconds a sample on a CPU, a suite a tenth of one: the records of a finished grid are the evidence for
a suite, on every backbone, method, set and budget that they hold, without running AutoAttack again.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.load import load_backbone
from apd_bench.core.errors import MissingPrerequisite
from apd_bench.core.identity import digest
from apd_bench.core.specs import ATTACK_SEED, format_eps
from apd_bench.data.protocols import limit_split, select_classes
from apd_bench.data.splits import load_dataset
from apd_bench.prompts.classifier import Classifier
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import Record
from apd_bench.records.store import Store
from apd_bench.records.submission import local_cell
from apd_bench.training.prompt_states import load_state, restore
from tests.benchmarks.models import attack, samples_of
from tests.benchmarks.table import Row

SUITES = ("worst", "worst.fast")
RECORDS, BOARD = Path("results/suites"), Path("results/embedded")
SUITE, LIBRARY = "worst.fast", "autoattack"  # of the audit: from the verdicts of `results/` alone, it attacks nothing


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """One suite against AutoAttack on n samples: who stands, who was broken by one side alone, passes and seconds."""

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

    @staticmethod
    def of(broken: Any, library: Any, **cost: Any) -> "Verdicts":
        """Those of two arrays [n] that say who was broken; `cost` are the fields of passes and seconds."""
        return Verdicts(
            n=len(broken),
            standing=int((~broken).sum()),
            missed=int((library & ~broken).sum()),
            gained=int((broken & ~library).sum()),
            library_standing=int((~library).sum()),
            **cost,
        )

    def plus(self, other: "Verdicts") -> "Verdicts":
        """Both together."""
        return Verdicts(**{item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self)})

    def row(self, suite: str, where: str) -> Row:
        """A row of gradients, AutoAttack's being the usual ones."""
        low, high = (f"{100 * edge:+.2f}" for edge in self.interval)
        robust = (f"{100 * standing / self.n:.2f}" for standing in (self.library_standing, self.standing))
        return Row(
            part="suites",
            what=f"{suite} / AutoAttack on {where}, {self.n} samples",
            usual=(self.library_backwards / self.n,),
            ours=(self.backwards / self.n,),
            unit="gradients per image",
            facts={
                "robust accuracy, %": " / ".join(robust),
                "difference, points (95 %)": f"{100 * self.difference:+.2f} ({low} to {high})",
                "missed": self.missed,
                "gained": self.gained,
                "forwards per image": f"{self.library_forwards / self.n:.1f} / {self.forwards / self.n:.1f}",
                "wall s": round(self.seconds, 1),
            },
        )


def rows(quick: bool, device: str) -> Iterator[Row]:
    """A row for every backbone, budget and suite of the records, then one for each suite over all of them."""
    totals: dict[str, Verdicts] = {}
    for (name, eps, suite), verdicts in against_records(Store(RECORDS), SUITES, device).items():
        totals[suite] = totals[suite].plus(verdicts) if suite in totals else verdicts
        yield verdicts.row(suite, f"{name}, {format_eps(eps)}")
    for suite, verdicts in totals.items():
        yield verdicts.row(suite, "all of them")


def against_records(
    store: Store, suites: Sequence[str], device: str = "cpu", *, keep: Callable[[Record], bool] = lambda record: True
) -> dict[tuple[str, float, str], Verdicts]:
    """The verdicts by backbone, budget and suite on the cells that standard AutoAttack has judged and `keep` accepts.

    Raises MissingPrerequisite where the store holds no such cell with the prompts that were attacked.
    """
    found: dict[tuple[str, float, str], Verdicts] = {}
    models: dict[str, Backbone] = {}
    for record in _judged(store, keep):
        name = record.cell.fit.backbone.name
        if name not in models:
            models = {name: load_backbone(name, device)}
        for suite in suites:
            key = (name, record.cell.threat.eps, suite)
            verdicts = _compare(store, record, suite, models[name])
            found[key] = found[key].plus(verdicts) if key in found else verdicts
    if not found:
        raise MissingPrerequisite(
            f"{store.path} holds no cell of standard AutoAttack with its prompts.",
            hint="Make some: apd-bench run --attacks autoattack",
        )
    return dict(sorted(found.items(), key=lambda item: (*item[0][:2], suites.index(item[0][2]))))


def _judged(store: Store, keep: Callable[[Record], bool]) -> list[Record]:
    """The white-box records in float32 on stored prompts; of cells that differ in their limit alone, the largest."""
    largest: dict[str, Record] = {}
    for record in store.records():
        cell = record.cell
        plain = cell.threat.norm == "Linf" and cell.threat.knowledge == "white_box" and cell.precision == "fp32"
        if record.status != "success" or cell.attack.label != "autoattack" or not plain or not keep(record):
            continue
        known = largest.setdefault(digest(replace(cell, limit=None)), record)
        largest[digest(replace(cell, limit=None))] = max(known, record, key=lambda item: float(item.metrics["n"]))
    whole = [record for record in largest.values() if _with_prompts(store, record) is not None]
    if len(whole) < len(largest):
        number = len(largest) - len(whole)
        sys.stderr.write(f"{number} of {len(largest)} cells are left out: their prompts are not in {store.path}\n")
    return sorted(whole, key=lambda record: (record.cell.fit.backbone.name, record.id))


def _with_prompts(store: Store, record: Record) -> Store | None:
    """The store that has the prompts of a record: its own, or that of the board, where each lies once."""
    return next((one for one in (store, Store(BOARD)) if one.has_prompts_of(record)), None)


def _compare(store: Store, record: Record, suite: str, backbone: Backbone) -> Verdicts:
    cell = local_cell(record.cell)
    data = load_dataset(cell.dataset, image_size=backbone.shapes.image_size, resize=cell.fit.resize)
    data = select_classes(data, cell.classes)
    home = _with_prompts(store, record) or store
    learner = restore(load_state(home.fit_path(cell.fit.id)), backbone, data.classes, data.template)
    test = limit_split(data.split(cell.split), cell.limit)
    stored = store.outcomes(record.id, record)
    place = {name: row for row, name in enumerate(stored.sample_id.tolist())}
    library = stored.broken[[place[name] for name in test.ids]]
    samples = samples_of(Classifier.from_learner(backbone, learner), test)
    began = time.perf_counter()
    result = attack(suite, samples, cell.threat, seed=ATTACK_SEED)
    return Verdicts.of(
        result.broken.cpu().numpy(),
        library,
        forwards=result.forwards,
        backwards=result.backwards,
        seconds=time.perf_counter() - began,
        library_forwards=int(record.timing["forwards"]),
        library_backwards=int(record.timing["backwards"]),
    )


def audit_rows(quick: bool, device: str) -> Iterator[Row]:
    """A row for each method, then one for all; raises MissingPrerequisite where nothing was judged by both."""
    by_method = differences(Store(BOARD), Store(RECORDS))
    for method, verdicts in by_method.items():
        yield replace(verdicts.row(SUITE, method), part="audit")
    yield replace(reduce(Verdicts.plus, by_method.values()).row(SUITE, "all methods"), part="audit")


def differences(board: Store, evidence: Store) -> dict[str, Verdicts]:
    """The verdicts of `worst.fast` on the board and of AutoAttack on the samples of its cells, by method.

    The board at 3/255, where every method was judged by both; at other budgets AutoAttack judged zero-shot alone.
    """
    suites = {
        _place(record): record
        for record in board.records()
        if record.cell.attack.label == SUITE and round(255 * record.cell.threat.eps, 6) == 3
    }
    found: dict[str, Verdicts] = {}
    for record in evidence.records():
        other = suites.get(_place(record))
        if record.cell.attack.label != LIBRARY or other is None or other.fit["digest"] != record.fit["digest"]:
            continue
        name = record.cell.fit.method.name
        verdicts = _verdicts(evidence.outcomes(record.id, record), board.outcomes(other.id, other), record, other)
        found[name] = found[name].plus(verdicts) if name in found else verdicts
    if not found:
        raise MissingPrerequisite(f"{evidence.path} holds no cell of {LIBRARY} beside one of {SUITE} in {board.path}.")
    return dict(sorted(found.items()))


def _place(record: Record) -> str:
    """What two cells share that differ in their attack and in how many samples they take."""
    cell = record.cell
    return digest(replace(cell, attack=replace(cell.attack, name="any", version=1, options={}, code=None), limit=None))


def _verdicts(theirs: Outcomes, ours: Outcomes, library: Record, suite: Record) -> Verdicts:
    place = {name: row for row, name in enumerate(ours.sample_id.tolist())}
    order = [place[name] for name in theirs.sample_id.tolist()]  # a limit takes the first of one fixed order
    share = len(order) / len(ours.sample_id)
    return Verdicts.of(
        ours.broken[order],
        theirs.broken,
        forwards=round(share * int(suite.timing["forwards"])),
        backwards=round(share * int(suite.timing["backwards"])),
        seconds=share * float(suite.timing["attack_seconds"]),
        library_forwards=int(library.timing["forwards"]),
        library_backwards=int(library.timing["backwards"]),
    )
