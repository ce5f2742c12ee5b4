"""From measurements to tables: what is compared with what, what is complete, and the numbers of each row."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace

import numpy as np

from apd_bench.core.specs import format_eps
from apd_bench.leaderboard import grids, statistics
from apd_bench.leaderboard.drafts import Draft
from apd_bench.leaderboard.grids import RowKey
from apd_bench.leaderboard.model import Hits, Protocol, Row, Table, TableKey
from apd_bench.leaderboard.tidy import Measurement, attack_order

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
            same = grids.same_ids(item.evidence.ids, held.evidence.ids)
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
        for number, part in enumerate(grids.parts_by_dataset(grouped[key]))
    ]


def table_key(item: Measurement) -> TableKey:
    """The key of the table that `item` belongs to; shots are 0 for methods that learn nothing."""
    cell, fit = item.cell, item.cell.fit
    return TableKey(
        group=cell.dataset.group,
        task="few_shot" if cell.task == "zero_shot" else cell.task,
        backbone=fit.backbone.name,
        backbone_key=item.backbone_key,
        training=fit.backbone.training,
        threat=cell.threat,
        shots=item.shots,
        trained_on=fit.dataset.name if item.trains and cell.task == "cross_dataset" else "",
        classes=cell.classes,
        protocol=Protocol.of(cell),
    )


def build_table(
    key: TableKey, items: list[Measurement], declared: Sequence[str] = (), *, further: bool = False
) -> Table:
    """The table of `items`, which all have `key`; `declared` are its attack columns (default: what most rows have)."""
    names = _dataset_names(items)
    grid = grids.by_row(items)
    found = {item.attack for item in items if not item.distance_attack}
    attacks = tuple(sorted(found & set(declared) or grids.common_attacks(grid), key=attack_order))
    distances = tuple(sorted({item.attack for item in items if item.distance_attack}))
    seeds = grids.common_seeds(grid)
    reference_ids = grids.common_ids(items, names)
    labels = _row_labels(grid)
    drafts = [
        Draft(labels[row], grid[row], names, attacks, seeds if grid[row][0].trains else (0,), reference_ids)
        for row in sorted(grid)
    ]
    for name in names.values():
        _estimate_datasets(drafts, name)
    rows = _with_means(drafts, tuple(names.values()), attacks, seeds)
    done = [item for item in items if item.done]
    return Table(
        key=key,
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
        further=further,
    )


def _estimate_datasets(drafts: Sequence[Draft], name: str) -> None:
    """The estimates of one dataset for all rows; rows with as many seeds share their draws."""
    by_shape: dict[tuple[int, ...], list[Draft]] = defaultdict(list)
    for draft in drafts:
        if name in draft.hits:
            by_shape[draft.hits[name]["clean"].shape].append(draft)
    for group in by_shape.values():
        hits = np.concatenate([np.stack(list(draft.hits[name].values())) for draft in group])
        values = iter(statistics.accuracies([hits], _DRAWS))
        for draft in group:
            draft.keep(name, values)


def _with_means(
    drafts: list[Draft], datasets: tuple[str, ...], attacks: tuple[str, ...], seeds: tuple[int, ...]
) -> list[Row]:
    """Complete rows with means, intervals and ranks, best first; then the others by name."""
    complete = [draft for draft in drafts if draft.complete]
    others = [draft.row({}) for draft in drafts if not draft.complete]
    if not complete:
        return others

    def panel(columns: Sequence[str]) -> list[Hits]:
        """[columns x rows, seeds, samples] per dataset."""
        return [
            statistics.stacked([draft.hits[name][column] for column in columns for draft in complete], len(seeds))
            for name in datasets
        ]

    worst, columns = panel(["worst"]), ("clean", *attacks)
    draws = statistics.resampled_means(worst, statistics.resamples_for(len(complete)))  # Holm needs many
    values = statistics.estimates(worst, draws)
    ranks = statistics.rank_ranges(np.array([value.value for value in values]), draws)
    hand_made = next((place for place, draft in enumerate(complete) if draft.label == "zero_shot"), None)
    gains = [
        None
        if hand_made is None or hand_made == place
        else statistics.difference(draws[place], draws[hand_made], value.value - values[hand_made].value, value.n)
        for place, value in enumerate(values)
    ]
    rest = panel(columns)
    values += statistics.estimates(rest, statistics.resampled_means(rest, _DRAWS))
    count = len(complete)
    rows = [
        draft.row(
            {column: values[place * count + index] for place, column in enumerate(("worst", *columns))},
            ranks[index],
            gains[index],
        )
        for index, draft in enumerate(complete)
    ]
    rows.sort(key=lambda row: (-row.estimates["worst"].value, -row.estimates["clean"].value, row.method))
    return rows + others


def _dataset_names(items: list[Measurement]) -> dict[str, str]:
    """Column name per dataset key, sorted by name; two contents under one name are told apart by their key."""
    keys = sorted({(item.cell.dataset.name, item.dataset_key) for item in items})
    often = Counter(name for name, _ in keys)
    return {key: name if often[name] == 1 else f"{name}@{key[:4]}" for name, key in keys}


def _row_labels(rows: Mapping[RowKey, list[Measurement]]) -> dict[RowKey, str]:
    """The method's name; where several variants of a method meet, what tells them apart."""
    often = Counter(method for method, _ in rows)
    labels: dict[RowKey, str] = {}
    for (method, variant), items in rows.items():
        eps = items[0].cell.fit.train_eps
        budget = f", trained at {format_eps(eps)}" if eps is not None else ""
        labels[(method, variant)] = method if often[method] == 1 else f"{method} [{variant[:6]}{budget}]"
    return labels


def _distinct(done: list[Measurement], name: str) -> tuple[str, ...]:
    return tuple(sorted({item.software[name] for item in done if name in item.software}))


def _mixed_notes(done: list[Measurement]) -> Iterable[str]:
    """What a reader must know about the software behind the records of one table."""
    versions: dict[str, set[int]] = defaultdict(set)
    for item in done:
        versions[item.attack].add(item.cell.attack.version)
    for attack, found in sorted(versions.items()):
        if len(found) > 1:
            yield f"{attack}: records of versions {', '.join(map(str, sorted(found)))} are mixed"
    for name in sorted({name for item in done for name in item.software} - {"commit", "dirty", "plug-ins"}):
        values = _distinct(done, name)
        if len(values) > 1:
            yield f"records of several versions are mixed: {name} {', '.join(values)}"
    dirty = sum("dirty" in item.software for item in done)
    if dirty:
        yield f"{dirty} of {len(done)} records come from a source tree with changes that no commit holds"
    for plugins in _distinct(done, "plug-ins"):
        yield f"plug-ins were installed: {plugins}"


def _key_order(key: TableKey) -> tuple[object, ...]:
    task = _TASKS.index(key.task) if key.task in _TASKS else len(_TASKS)
    backbone = (key.training != "standard", key.backbone, key.backbone_key)
    threat = (key.threat.norm, key.threat.eps, key.threat.label)
    protocol = tuple(map(str, astuple(key.protocol)))
    return (task, key.group, *backbone, *threat, key.trained_on, key.classes, -key.shots, protocol)
