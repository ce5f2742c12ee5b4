"""Large cells in parts: sample shards that are measured apart, kept on disk, and merged into one record.

A shard is finished work: a run that is killed repeats at most the shards that were under way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from apd_bench.core.errors import CorruptFile
from apd_bench.core.files import atomic_write, sha256
from apd_bench.core.specs import Cell
from apd_bench.records.record import Outcomes, plain
from apd_bench.runner.estimate import samples_of
from apd_bench.runner.tasks import CellDone

Shard = tuple[int, int]
SHARD = 500  # samples; a cell of at most one and a half times as many stays whole
_EVENTS = ("attacked_again", "out_of_memory")
_PARTS = ("metrics", "timing", "diagnostics", "suspect", "effective", "fit", "environment")


def shards_of(cell: Cell, size: int = SHARD) -> list[Shard | None]:
    """The shards (k, of m) of a cell, [None] for one that stays whole; a pure function of the cell and `size`."""
    number = math.ceil(samples_of(cell) / size)
    if number <= 1 or samples_of(cell) * 2 <= size * 3:
        return [None]
    return [(place, number) for place in range(number)]


def shard_rows(shard: Shard, samples: int) -> range:
    """The rows of a shard among `samples`."""
    place, number = shard
    return range(place * samples // number, (place + 1) * samples // number)


def keep(folder: Path, shard: Shard, done: CellDone) -> None:
    """Writes a finished shard into `folder`; the JSON file comes last and names the digest of the other."""
    content = done.outcomes.to_bytes()
    stem = _stem(shard)
    facts = {name: plain(getattr(done, name)) for name in _PARTS}
    atomic_write(folder / f"{stem}.npz", content)
    atomic_write(folder / f"{stem}.json", json.dumps({"sha256": sha256(content), **facts}, sort_keys=True).encode())


def kept(folder: Path, shard: Shard) -> CellDone | None:
    """The finished shard in `folder`; None when there is none that can be trusted."""
    stem = _stem(shard)
    try:
        facts: dict[str, Any] = json.loads((folder / f"{stem}.json").read_bytes())
        content = (folder / f"{stem}.npz").read_bytes()
        if facts.pop("sha256") != sha256(content):
            return None
        outcomes = Outcomes.from_bytes(content, source=f"{folder / stem}.npz")
        return CellDone(outcomes=outcomes, suspect=tuple(facts.pop("suspect")), **facts)
    except (OSError, ValueError, KeyError, TypeError, CorruptFile):
        return None  # whatever is wrong with it, the shard is measured again


def merge(parts: list[CellDone]) -> CellDone:
    """The shards of a cell, in their order, as the whole cell.

    Accuracies are counted anew from the samples; shares among the diagnostics are means weighted by samples, and the
    suspect marks follow from them; seconds and passes are added.
    """
    if len(parts) == 1:
        return parts[0]
    from apd_bench.evaluation.diagnostics import suspect  # only here: it imports torch

    order = [name for part in parts for name in part.outcomes.sample_id.tolist()]
    outcomes = Outcomes.merge([part.outcomes for part in parts], order)
    metrics: dict[str, Any] = {
        "n": len(outcomes),
        "clean_accuracy": float((outcomes.clean_prediction == outcomes.label).mean()),
        "robust_accuracy": 1 - float(outcomes.broken.mean()),
    }
    if "distance" in outcomes.extra:
        distance = outcomes.extra["distance"]
        metrics["median_distance"] = float(np.median(distance))
        metrics["found"] = float(np.isfinite(distance).mean())
    diagnostics = _mean([part.diagnostics for part in parts], [len(part.outcomes) for part in parts])
    return CellDone(
        metrics=metrics,
        outcomes=outcomes,
        timing=_total([part.timing for part in parts]),
        diagnostics=diagnostics,
        suspect=tuple(suspect(diagnostics)),
        effective={**_effective([part.effective for part in parts]), "shards": len(parts)},
        fit=parts[0].fit,
        environment=parts[0].environment,
    )


def _stem(shard: Shard) -> str:
    return f"shard-{shard[0]:04d}-of-{shard[1]:04d}"


def _effective(facts: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers of events are added; what the shards did in different ways is listed by shard under `by_shard`."""
    merged: dict[str, Any] = {}
    differing: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for fact in facts for name in fact):
        values = [fact.get(name) for fact in facts]
        if name in _EVENTS:
            merged[name] = sum(value or 0 for value in values)
        else:
            merged[name] = next((value for value in reversed(values) if value is not None), None)
            if any(value != values[0] for value in values):
                differing[name] = values
    return merged | ({"by_shard": differing} if differing else {})


def _total(timings: list[Mapping[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(name for timing in timings for name in timing)
    return {
        name: (max if name == "peak_memory" else sum)(float(timing.get(name) or 0) for timing in timings)
        for name in names
    }


def _mean(facts: list[Mapping[str, Any]], weights: list[int]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for fact in facts for name in fact):
        pairs = [(fact[name], weight) for fact, weight in zip(facts, weights, strict=True) if name in fact]
        if all(isinstance(value, (int, float)) for value, _ in pairs):
            total = sum(weight for _, weight in pairs)
            merged[name] = sum(value * weight for value, weight in pairs) / total if total else 0.0
        elif all(isinstance(value, (list, tuple)) for value, _ in pairs):
            merged[name] = list(dict.fromkeys(item for value, _ in pairs for item in value))
        else:
            merged[name] = pairs[0][0]
    return merged
