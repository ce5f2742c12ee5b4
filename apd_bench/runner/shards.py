"""Large cells in parts: sample shards that are measured apart and kept on disk until all are there.

A shard is finished work: a run that is killed repeats at most the shards that were under way.
"""

import json
import math
from pathlib import Path
from typing import Any

from apd_bench.core.errors import CorruptFile
from apd_bench.core.files import atomic_write, sha256
from apd_bench.core.specs import Cell
from apd_bench.records.measured import Measured, facts_of
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import json_form
from apd_bench.runner.estimate import samples_of

Shard = tuple[int, int]
SHARD = 500  # samples; a cell of at most one and a half times as many stays whole


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


def save_shard(folder: Path, shard: Shard, measured: Measured) -> None:
    """Writes a finished shard into `folder`; the JSON file comes last and names the digest of the other."""
    content = measured.outcomes.to_bytes()
    stem = _stem(shard)
    facts = {"sha256": sha256(content), **json_form(measured.facts())}
    atomic_write(folder / f"{stem}.npz", content)
    atomic_write(folder / f"{stem}.json", json.dumps(facts, sort_keys=True).encode())


def load_shard(folder: Path, shard: Shard) -> Measured | None:
    """The finished shard in `folder`; None when there is none that can be trusted."""
    stem = _stem(shard)
    try:
        facts: dict[str, Any] = json.loads((folder / f"{stem}.json").read_bytes())
        content = (folder / f"{stem}.npz").read_bytes()
        if facts.pop("sha256") != sha256(content):
            return None
        outcomes = Outcomes.from_bytes(content, source=f"{folder / stem}.npz")
        return Measured(outcomes=outcomes, **facts_of(facts))
    except (OSError, ValueError, KeyError, TypeError, CorruptFile):
        return None  # whatever is wrong with it, the shard is measured again


def _stem(shard: Shard) -> str:
    return f"shard-{shard[0]:04d}-of-{shard[1]:04d}"
