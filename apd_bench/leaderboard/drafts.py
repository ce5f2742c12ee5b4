"""Rows while they are being filled: which cells are there and comparable, and what is said of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from apd_bench.leaderboard.grids import same_ids
from apd_bench.leaderboard.model import Cost, DatasetResult, Hits, Row
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
        self.label, self.items, self.attacks, self.seeds = label, items, attacks, seeds
        self.used = [item for item in items if item.seed in seeds]
        self.planned = len(names) * len(seeds) * len(attacks)
        self.missing: dict[str, int] = {}
        self.hits: dict[str, dict[str, Hits]] = {}
        self.complete_seeds: dict[str, tuple[int, ...]] = {}
        self.results: dict[str, DatasetResult] = {}
        self.lowered: Counter[str] = Counter()
        self.notes: list[str] = []
        cells: dict[tuple[str, int], dict[str, Evidence]] = defaultdict(dict)
        for item in self.used:
            if item.done and item.evidence is not None and not item.distance_attack:
                cells[item.dataset_key, item.seed][item.attack] = item.evidence
        for dataset, name in names.items():
            ids = reference_ids.get(dataset)
            self._fill(name, [self._comparable(name, cells[dataset, seed], ids) for seed in seeds])

    def _comparable(
        self, name: str, cells: Mapping[str, Evidence], ids: NDArray[np.str_] | None
    ) -> dict[str, Evidence]:
        """By attack, the cells that were measured on the samples `ids`; a note names the others."""
        same = {attack: cell for attack, cell in cells.items() if ids is not None and same_ids(cell.ids, ids)}
        others = [attack for attack in self.attacks if attack in cells and attack not in same]
        self.notes += [f"{name}: {attack} was measured on other samples than the rest" for attack in others]
        return same

    def _fill(self, name: str, cells: list[dict[str, Evidence]]) -> None:
        """Takes the cells of one dataset, by seed and attack."""
        missing = sum(attack not in cell for cell in cells for attack in self.attacks)
        if missing:
            self.missing[name] = missing
        complete = {
            seed: self._columns(cell)
            for seed, cell in zip(self.seeds, cells, strict=True)
            if self.attacks and all(attack in cell for attack in self.attacks)
        }
        if complete:
            self.complete_seeds[name] = tuple(complete)
            names = next(iter(complete.values()))
            self.hits[name] = {column: np.stack([hits[column] for hits in complete.values()]) for column in names}

    def _columns(self, cell: Mapping[str, Evidence]) -> dict[str, Hits]:
        """The hits of one seed by column; further attacks, of which there is evidence, count in the worst case."""
        hits = {attack: cell[attack].robust for attack in self.attacks}
        worst: Hits = np.logical_and.reduce(list(hits.values()))
        for attack in cell:
            if attack not in hits:
                self.lowered[attack] += int((worst & ~cell[attack].robust).sum())
                worst = worst & cell[attack].robust
        return {"clean": cell[self.attacks[0]].clean_right, **hits, "worst": worst}

    @property
    def complete(self) -> bool:
        """True when every planned cell is there and comparable."""
        return self.planned > 0 and not self.missing

    def row(
        self, estimates: Mapping[str, Estimate], ranks: tuple[int, int] | None = None, gain: Estimate | None = None
    ) -> Row:
        """The finished row; `estimates` is empty for one that is not complete."""
        done = [item for item in self.used if item.done]
        return Row(
            method=self.label,
            variant=(self.used or self.items)[0].variant,
            recipes=tuple({item.variant: item.cell.fit.method for item in self.items}.values()),
            ranks=ranks,
            gain=gain,
            parameters=_parameters(done),
            estimates=estimates,
            datasets=self.results,
            distances=_median_distances(done),
            seeds=self.seeds,
            done=self.planned - sum(self.missing.values()),
            planned=self.planned,
            missing=self.missing,
            failed=_counted(item.error or item.status for item in self.used if not item.done),
            suspect=_counted(reason for item in done for reason in item.suspect),
            collapsed=len({item.cell.fit.id for item in done if item.fit.get("collapsed")}),
            cost=_cost(done, self.attacks),
            train_eps=_budgets(self.items),
            notes=(*dict.fromkeys(self.notes), *self._further()),
        )

    def _further(self) -> Iterable[str]:
        seeds = sorted({item.seed for item in self.items if item.trains} - set(self.seeds))
        if seeds:
            yield f"left out: seeds {', '.join(map(str, seeds))}, which most methods of the table lack"
        mixed = _fits_of_several_prompts(self.used)
        if mixed:
            yield f"cells of {mixed} fits were measured with different prompts: these were trained again in between"
        short = {
            item.cell.fit.id: item.fit["fewer_shots"]["fewest"] for item in self.items if "fewer_shots" in item.fit
        }
        if short:
            fewest = min(short.values())
            yield f"{len(short)} fits had classes with fewer training images than shots (the fewest: {fewest})"
        for name in sorted({item.fit["carried_from"] for item in self.items if "carried_from" in item.fit}):
            yield f"its prompts were made for another backbone, {name}"
        for attack, samples in sorted(self.lowered.items()):
            yield f"the worst case counts the further attack {attack}, which broke {samples} more (sample, seed) pairs"

    def keep(self, name: str, values: Iterator[Estimate]) -> None:
        """Takes the estimates of the columns of one dataset, which are the next among `values`."""
        columns = self.hits[name]
        self.results[name] = DatasetResult(
            estimates={column: next(values) for column in columns},
            seeds=self.complete_seeds[name],
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
