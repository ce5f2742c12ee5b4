"""From measurements to tables: what is compared with what, what is complete, and the numbers of each row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from apd_bench.leaderboard import statistics
from apd_bench.leaderboard.grids import RowKey, by_row, common_attacks, common_seeds, parts_by_dataset
from apd_bench.leaderboard.model import DatasetResult, Hits, Row, Table, TableKey
from apd_bench.leaderboard.samples import common_ids, same_ids
from apd_bench.leaderboard.statistics import Estimate
from apd_bench.leaderboard.tidy import Evidence, Measurement, attack_order
from apd_bench.specs import format_eps

_DRAWS = 1999  # for an interval; tests between methods take more
_TASKS = ("few_shot", "base_to_new", "cross_dataset")


def unique(measurements: Iterable[Measurement]) -> tuple[list[Measurement], list[str]]:
    """One measurement per cell (a success before a failure, the first store first), and the ids that disagree."""
    kept: dict[str, Measurement] = {}
    conflicts: list[str] = []
    for item in measurements:
        held = kept.get(item.id)
        if held is None or (item.done and not held.done):
            kept[item.id] = item
        elif item.evidence is not None and held.evidence is not None:
            same = same_ids(item.evidence.ids, held.evidence.ids)
            if not same or not np.array_equal(item.evidence.robust, held.evidence.robust):
                conflicts.append(item.id)
    return [kept[key] for key in sorted(kept)], sorted(conflicts)


def tables(measurements: Iterable[Measurement], attacks: Sequence[str] = ()) -> list[Table]:
    """All tables in a fixed order; an empty list for no measurements.

    `attacks` declares the columns (default: those that most methods were attacked with). Evidence of further attacks
    makes no column and no gap, but a sample that one of them breaks does not count as withstanding.
    """
    grouped: dict[TableKey, list[Measurement]] = defaultdict(list)
    references: list[Measurement] = []
    for item in measurements:
        if item.trains:
            grouped[table_key(item)].append(item)
        else:
            references.append(item)
    places = {key: {item.dataset_key for item in items} for key, items in grouped.items()}
    alike: dict[TableKey, list[TableKey]] = defaultdict(list)
    for key in places:
        alike[replace(key, shots=0, trained_on="")].append(key)
    for item in references:  # a method without training is a row of every table that differs only in shots
        own = table_key(item)
        homes = alike.get(own, [])
        for home in [key for key in homes if item.dataset_key in places[key]] or [own]:
            grouped[home].append(item)
    return [
        build_table(key, part, attacks, further=number > 0)
        for key in sorted(grouped, key=_key_order)
        for number, part in enumerate(parts_by_dataset(grouped[key]))
    ]


def table_key(item: Measurement) -> TableKey:
    """The key of the table that `item` belongs to; shots are 0 for methods that learn nothing."""
    return TableKey(
        group=item.group,
        task="few_shot" if item.task == "zero_shot" else item.task,
        backbone=item.backbone,
        backbone_key=item.backbone_key,
        training=item.training,
        threat=item.threat,
        shots=item.shots if item.trains else 0,
        trained_on=item.source_dataset if item.trains and item.task == "cross_dataset" else "",
        classes=item.classes,
        protocol=item.protocol,
    )


def build_table(
    key: TableKey, items: list[Measurement], declared: Sequence[str] = (), *, further: bool = False
) -> Table:
    """The table of `items`, which all have `key`; `declared` are its attack columns (default: what most rows have)."""
    names = _dataset_names(items)
    grid = by_row(items)
    found = {item.attack for item in items if not item.distance_attack}
    attacks = tuple(sorted(found & set(declared) or common_attacks(grid), key=attack_order))
    distances = tuple(sorted({item.attack for item in items if item.distance_attack}))
    seeds = common_seeds(grid)
    reference_ids = common_ids(items, names)
    labels = _row_labels(grid)
    drafts = [
        _Draft(labels[row], grid[row], names, attacks, seeds if grid[row][0].trains else (0,), reference_ids)
        for row in sorted(grid)
    ]
    for name in names.values():
        _estimate_datasets(drafts, name)
    rows = _with_means(drafts, tuple(names.values()), attacks, seeds)
    done = [item for item in items if item.done]
    return Table(
        key=key,
        backbone_title=items[0].backbone_title,
        datasets=tuple(names.values()),
        attacks=attacks,
        distance_attacks=distances,
        seeds=seeds if any(item.trains for item in items) else (),
        rows=tuple(rows),
        ids={names[dataset]: tuple(ids.tolist()) for dataset, ids in reference_ids.items()},
        versions=_distinct(done, "apd-bench"),
        commits=_distinct(done, "commit"),
        dates=tuple(sorted({item.created[:10] for item in done if item.created})),
        notes=tuple(_mixed_notes(done)),
        embedded=all(item.group == "embedded" for item in items),
        titles={names[item.dataset_key]: item.dataset_title for item in items},
        further=further,
    )


class _Draft:
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
        found = {(item.dataset_key, item.seed if item.trains else 0, item.attack): item for item in items if item.done}
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
            same_cell = (item.dataset_key, item.seed if item.trains else 0) == (dataset, seed)
            if same_cell and same_ids(found.ids, evidence[0].ids):
                self.lowered[item.attack] += int((worst & ~found.robust).sum())
                worst = worst & found.robust
        return worst

    @property
    def complete(self) -> bool:
        return self.planned > 0 and self.done == self.planned

    def row(self, estimates: Mapping[str, Estimate], rank: int | None) -> Row:
        first = self.items[0] if self.items else self.all[0]
        done = [item for item in self.items if item.done]
        attacked = [item for item in done if item.attack in self.attacks]
        harmonic = statistics.harmonic_mean(estimates["clean"].value, estimates["worst"].value) if estimates else None
        failed = Counter(item.error or item.status for item in self.items if not item.done)
        return Row(
            method=self.label,
            title=first.method_title,
            paper=first.paper,
            variant=first.variant,
            rank=rank,
            parameters=_parameters(done),
            estimates=estimates,
            harmonic=harmonic,
            datasets=self.results,
            distances=_median_distances(done),
            seeds=self.seeds,
            trains=first.trains,
            done=self.done,
            planned=self.planned,
            missing=self.missing,
            suspect=dict(sorted(Counter(reason for item in done for reason in item.suspect).items())),
            collapsed=len({item.fit_id for item in done if item.collapsed}),
            failed=dict(sorted(failed.items())),
            train_seconds=_train_seconds(done),
            attack_seconds=_total(item.attack_seconds for item in attacked),
            sample_seconds=_per_sample(attacked, (item.attack_seconds for item in attacked), len(self.attacks)),
            forwards=_per_sample(attacked, (item.forwards for item in attacked)),
            backwards=_per_sample(attacked, (item.backwards for item in attacked)),
            records=tuple(sorted(item.id for item in self.all)),
            recipes=tuple({item.variant: item.recipe for item in self.all}.values()),
            train_eps=tuple(sorted({item.train_eps for item in self.all}, key=lambda eps: (eps is not None, eps or 0))),
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


def _estimate_datasets(drafts: Sequence[_Draft], name: str) -> None:
    """The estimates of one dataset for all rows; rows with as many seeds share their draws."""
    by_shape: dict[tuple[int, ...], list[_Draft]] = defaultdict(list)
    for draft in drafts:
        if name in draft.hits:
            by_shape[draft.hits[name]["clean"].shape].append(draft)
    for (seeds, _), group in by_shape.items():
        columns = len(group[0].hits[name])
        panel = [np.concatenate([np.stack(list(draft.hits[name].values())) for draft in group])]
        if seeds == 1:
            values = [statistics.wilson(int(hits.sum()), hits.size) for hits in panel[0]]
        else:
            values = statistics.estimates(panel, statistics.resampled_means(panel, _DRAWS))
        for place, draft in enumerate(group):
            draft.keep(name, values[place * columns : (place + 1) * columns])


def _with_means(
    drafts: list[_Draft], datasets: tuple[str, ...], attacks: tuple[str, ...], seeds: tuple[int, ...]
) -> list[Row]:
    """Complete rows with means, intervals and ranks, best first; then the others by name."""
    complete = [draft for draft in drafts if draft.complete]
    others = [draft.row({}, None) for draft in drafts if not draft.complete]
    if not complete:
        return others

    def panel(columns: Sequence[str]) -> list[Hits]:
        """[columns x rows, seeds, samples] per dataset."""
        found = []
        for name in datasets:
            shape = (len(seeds), next(iter(complete[0].hits[name].values())).shape[1])
            stacked = [np.broadcast_to(draft.hits[name][column], shape) for column in columns for draft in complete]
            found.append(np.stack(stacked))
        return found

    worst, columns = panel(["worst"]), ("clean", *attacks)
    draws = statistics.resampled_means(worst, statistics.resamples_for(len(complete)))  # Holm needs many
    values = statistics.estimates(worst, draws)
    ranks = statistics.shared_ranks(np.array([value.value for value in values]), draws)
    rest = panel(columns)
    values += statistics.estimates(rest, statistics.resampled_means(rest, _DRAWS))
    count = len(complete)
    rows = [
        draft.row(
            {column: values[place * count + index] for place, column in enumerate(("worst", *columns))}, ranks[index]
        )
        for index, draft in enumerate(complete)
    ]
    rows.sort(key=lambda row: (-row.estimates["worst"].value, -row.estimates["clean"].value, row.method))
    return rows + others


def _dataset_names(items: list[Measurement]) -> dict[str, str]:
    """Column name per dataset key, sorted by name; two contents under one name are told apart by their key."""
    keys = sorted({(item.dataset, item.dataset_key) for item in items})
    often = Counter(name for name, _ in keys)
    return {key: name if often[name] == 1 else f"{name}@{key[:4]}" for name, key in keys}


def _row_labels(rows: Mapping[RowKey, list[Measurement]]) -> dict[RowKey, str]:
    """The method's name; where several variants of a method meet, what tells them apart."""
    often = Counter(method for method, _ in rows)
    labels: dict[RowKey, str] = {}
    for (method, variant), items in rows.items():
        eps = items[0].train_eps
        budget = f", trained at {format_eps(eps)}" if eps is not None else ""
        labels[(method, variant)] = method if often[method] == 1 else f"{method} [{variant[:6]}{budget}]"
    return labels


def _parameters(done: list[Measurement]) -> int | None:
    known = [item.parameters for item in done if item.parameters is not None]
    return max(known) if known else None


def _total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _train_seconds(done: list[Measurement]) -> float | None:
    fits = {item.fit_id: item.train_seconds for item in done if item.trains and item.train_seconds is not None}
    return sum(fits.values()) / len(fits) if fits else None


def _per_sample(done: list[Measurement], passes: Iterable[float | None], times: int = 1) -> float | None:
    """The mean over all samples of `done`, times `times`."""
    counted = [
        (count, len(item.evidence.ids))
        for item, count in zip(done, passes, strict=True)
        if count is not None and item.evidence is not None
    ]
    samples = sum(number for _, number in counted)
    return times * sum(count for count, _ in counted) / samples if samples else None


def _median_distances(done: list[Measurement]) -> dict[str, float]:
    collected: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for item in done:
        if item.distance_attack and item.evidence is not None and item.evidence.distance is not None:
            collected[item.attack].append(item.evidence.distance)
    return {attack: float(np.median(np.concatenate(values))) for attack, values in sorted(collected.items())}


def _distinct(done: list[Measurement], name: str) -> tuple[str, ...]:
    return tuple(sorted({value for item in done for key, value in item.software if key == name}))


def _fits_of_several_prompts(items: Iterable[Measurement]) -> int:
    """The number of fits whose cells were measured with more than one state of the prompts."""
    prompts: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.done and item.prompts:
            prompts[item.fit_id].add(item.prompts)
    return sum(len(found) > 1 for found in prompts.values())


def _mixed_notes(done: list[Measurement]) -> Iterable[str]:
    """What a reader must know about the software behind the records of one table."""
    versions: dict[str, set[int]] = defaultdict(set)
    for item in done:
        versions[item.attack].add(item.attack_version)
    for attack, found in sorted(versions.items()):
        if len(found) > 1:
            yield f"{attack}: records of versions {', '.join(map(str, sorted(found)))} are mixed"
    for name in sorted({key for item in done for key, _ in item.software} - {"commit", "dirty", "plug-ins"}):
        values = _distinct(done, name)
        if len(values) > 1:
            yield f"records of several versions are mixed: {name} {', '.join(values)}"
    dirty = sum(("dirty", "yes") in item.software for item in done)
    if dirty:
        yield f"{dirty} of {len(done)} records come from a source tree with changes that no commit holds"
    for plugins in _distinct(done, "plug-ins"):
        yield f"plug-ins were installed: {plugins}"


def _key_order(key: TableKey) -> tuple[object, ...]:
    task = _TASKS.index(key.task) if key.task in _TASKS else len(_TASKS)
    backbone = (key.training != "standard", key.backbone, key.backbone_key)
    threat = (key.threat.norm, key.threat.eps, key.threat.short)
    return (task, key.group, *backbone, *threat, key.trained_on, key.classes, -key.shots, key.protocol)
