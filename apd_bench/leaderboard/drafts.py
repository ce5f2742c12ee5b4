"""Rows while they are being filled: which cells are there and comparable, and what is said of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from apd_bench.leaderboard.model import Cost, DatasetResult, Hits, Row
from apd_bench.leaderboard.samples import same_ids
from apd_bench.leaderboard.statistics import Estimate
from apd_bench.leaderboard.tidy import Evidence, Measurement


class Draft:
    """A row while it is being filled: per dataset the aligned hits of every column, and what is missing."""

    def __init__(
        self,
        label: str,
        items: list[Measurement],
        names: Mapping[str, str],
        attacks: tuple[str, ...],
        seeds: tuple[int, ...],
        reference_ids: Mapping[str, NDArray[np.str_]],
    ) -> None:
        self.label, self.seeds, self.attacks = label, seeds, attacks
        self.all = items
        self.items = [item for item in items if not item.trains or item.seed in seeds]
        self.notes: list[str] = []
        self.done = 0
        self.missing: dict[str, int] = {}
        self.planned = len(names) * len(seeds) * len(attacks)
        self.hits: dict[str, dict[str, Hits]] = {}
        self.partial: dict[str, tuple[int, ...]] = {}
        self.results: dict[str, DatasetResult] = {}
        self.lowered: Counter[str] = Counter()
        found = {(item.dataset_key, item.seed, item.attack): item for item in items if item.done}
        for dataset, name in names.items():
            before = self.done
            columns, complete_seeds = self._dataset(found, dataset, name, attacks, reference_ids.get(dataset))
            if self.done - before < len(seeds) * len(attacks):
                self.missing[name] = len(seeds) * len(attacks) - (self.done - before)
            if complete_seeds:
                self.hits[name] = columns
                self.partial[name] = complete_seeds

    def _dataset(
        self,
        found: Mapping[tuple[str, int, str], Measurement],
        dataset: str,
        name: str,
        attacks: tuple[str, ...],
        reference: NDArray[np.str_] | None,
    ) -> tuple[dict[str, Hits], tuple[int, ...]]:
        stacked: dict[str, list[Hits]] = defaultdict(list)
        complete: list[int] = []
        for seed in self.seeds:
            cells = [found[(dataset, seed, attack)] for attack in attacks if (dataset, seed, attack) in found]
            usable = []
            for cell in cells:
                if cell.evidence is not None and reference is not None and same_ids(cell.evidence.ids, reference):
                    usable.append(cell)
                else:
                    self.notes.append(f"{name}: {cell.attack} was measured on other samples than the rest")
            self.done += len(usable)
            if not usable or len(usable) < len(attacks):
                continue
            evidence = [cell.evidence for cell in usable if cell.evidence is not None]
            complete.append(seed)
            stacked["clean"].append(evidence[0].clean_right)
            for attack, single in zip(attacks, evidence, strict=True):
                stacked[attack].append(single.robust)
            stacked["worst"].append(self._worst(dataset, seed, evidence, attacks))
        return {column: np.stack(values) for column, values in stacked.items()}, tuple(complete)

    def _worst(self, dataset: str, seed: int, evidence: list[Evidence], attacks: tuple[str, ...]) -> Hits:
        """What withstands the attacks of the table, and whatever further attack there is evidence of."""
        worst: Hits = np.logical_and.reduce([single.robust for single in evidence])
        for item in self.items:
            found = item.evidence
            if found is None or not item.done or item.distance_attack or item.attack in attacks:
                continue
            same_cell = (item.dataset_key, item.seed) == (dataset, seed)
            if same_cell and same_ids(found.ids, evidence[0].ids):
                self.lowered[item.attack] += int((worst & ~found.robust).sum())
                worst = worst & found.robust
        return worst

    @property
    def complete(self) -> bool:
        """True when every planned cell is there and comparable."""
        return self.planned > 0 and self.done == self.planned

    def row(self, estimates: Mapping[str, Estimate], rank: int | None) -> Row:
        """The finished row; `estimates` is empty for one that is not complete."""
        done = [item for item in self.items if item.done]
        return Row(
            method=self.label,
            variant=(self.items or self.all)[0].variant,
            recipes=tuple({item.variant: item.cell.fit.method for item in self.all}.values()),
            rank=rank,
            parameters=_parameters(done),
            estimates=estimates,
            datasets=self.results,
            distances=_median_distances(done),
            seeds=self.seeds,
            done=self.done,
            planned=self.planned,
            missing=self.missing,
            failed=_counted(item.error or item.status for item in self.items if not item.done),
            suspect=_counted(reason for item in done for reason in item.suspect),
            collapsed=len({item.cell.fit.id for item in done if item.fit.get("collapsed")}),
            cost=_cost(done, self.attacks),
            train_eps=_budgets(self.all),
            notes=(*dict.fromkeys(self.notes), *self._further()),
        )

    def _further(self) -> Iterable[str]:
        seeds = sorted({item.seed for item in self.all if item.trains} - set(self.seeds))
        if seeds:
            yield f"left out: seeds {', '.join(map(str, seeds))}, which most methods of the table lack"
        mixed = _fits_of_several_prompts(self.items)
        if mixed:
            yield f"cells of {mixed} fits were measured with different prompts: these were trained again in between"
        for attack, samples in sorted(self.lowered.items()):
            yield f"the worst case counts the further attack {attack}, which broke {samples} more (sample, seed) pairs"

    def keep(self, name: str, values: Iterable[Estimate]) -> None:
        """Takes the estimates of the columns of one dataset."""
        columns = self.hits[name]
        self.results[name] = DatasetResult(
            estimates=dict(zip(columns, values, strict=True)),
            seeds=self.partial[name],
            per_seed={column: tuple(float(seed.mean()) for seed in hits) for column, hits in columns.items()},
            hits=columns,
        )


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items()))


def _budgets(items: Iterable[Measurement]) -> tuple[float | None, ...]:
    return tuple(sorted({item.cell.fit.train_eps for item in items}, key=lambda eps: (eps is not None, eps or 0)))


def _parameters(done: list[Measurement]) -> int | None:
    known = [item.fit.get("num_parameters", item.fit.get("parameters")) for item in done]
    return max((int(number) for number in known if number is not None), default=None)


def _cost(done: list[Measurement], attacks: tuple[str, ...]) -> Cost:
    trained = {
        item.cell.fit.id: item.fit["seconds"] for item in done if item.trains and item.fit.get("seconds") is not None
    }
    attacked = [item for item in done if item.attack in attacks]
    spent = [item.timing["attack_seconds"] for item in attacked if item.timing.get("attack_seconds") is not None]
    seconds = _per_sample(attacked, "attack_seconds")
    return Cost(
        train_seconds=sum(trained.values()) / len(trained) if trained else None,
        attack_seconds=float(sum(spent)) if spent else None,
        sample_seconds=None if seconds is None else len(attacks) * seconds,
        forwards=_per_sample(attacked, "forwards"),
        backwards=_per_sample(attacked, "backwards"),
    )


def _per_sample(done: list[Measurement], name: str) -> float | None:
    """The mean of a timing over all samples of the cells that have it."""
    counted = [
        (item.timing[name], len(item.evidence.ids))
        for item in done
        if item.timing.get(name) is not None and item.evidence is not None
    ]
    samples = sum(number for _, number in counted)
    return sum(count for count, _ in counted) / samples if samples else None


def _median_distances(done: list[Measurement]) -> dict[str, float]:
    collected: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for item in done:
        if item.distance_attack and item.evidence is not None and item.evidence.distance is not None:
            collected[item.attack].append(item.evidence.distance)
    return {attack: float(np.median(np.concatenate(values))) for attack, values in sorted(collected.items())}


def _fits_of_several_prompts(items: Iterable[Measurement]) -> int:
    """The number of fits whose cells were measured with more than one state of the prompts."""
    prompts: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.done and item.fit.get("digest"):
            prompts[item.cell.fit.id].add(item.fit["digest"])
    return sum(len(found) > 1 for found in prompts.values())
