"""What `apd-bench tune` left beside the records, by method: the curve of the best of k tries, and what was chosen."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apd_bench.core.errors import CorruptFile
from apd_bench.core.files import read_text
from apd_bench.leaderboard.curves import Point

FOLDER = "tuning"


@dataclass(frozen=True)
class Tuning:
    """A method's tries: expected best of k with its 90 % interval, scores in [0, 1], and the best configuration."""

    curve: tuple[Point, ...]
    default: float | None
    tuned: float
    configuration: tuple[tuple[str, str], ...]
    tries: int
    backbones: tuple[str, ...]
    tested: str


def load_tuning(stores: Sequence[Path]) -> dict[str, Tuning]:
    """The tries of each method, of the first store that has any; raises CorruptFile for files that are damaged."""
    found: dict[str, Tuning] = {}
    for store in stores:
        folder = store / FOLDER
        if (folder / "curve.csv").is_file() and (folder / "gains.csv").is_file():
            try:
                found = {**_read(folder), **found}
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise CorruptFile(
                    f"The tables of tries in {folder} are damaged: {error}.", hint="Make them anew: apd-bench tune"
                ) from error
    return found


def _read(folder: Path) -> dict[str, Tuning]:
    curve, gains, trials = (_lines(folder / f"{name}.csv") for name in ("curve", "gains", "trials"))
    backbones = tuple(sorted({line["backbone"] for line in trials}))
    attacks = sorted({f"{line['attack']} at {line['eps']}" for line in trials})
    sets, splits = (sorted({line[name] for line in trials}) for name in ("dataset", "split"))
    tested = f"{', '.join(attacks)}, {', '.join(splits)} images of {', '.join(sets)}" if trials else ""
    return {
        line["method"]: Tuning(
            curve=tuple(_point(item) for item in curve if item["method"] == line["method"]),
            default=float(line["default"]) / 100 if line["default"] else None,
            tuned=float(line["tuned"]) / 100,
            configuration=tuple(
                sorted((str(key), str(value)) for key, value in json.loads(line["configuration"]).items())
            ),
            tries=max(int(item["k"]) for item in curve if item["method"] == line["method"]),
            backbones=backbones,
            tested=tested,
        )
        for line in gains
    }


def _point(line: dict[str, str]) -> Point:
    value, low, high = (float(line[name]) / 100 for name in ("expected", "low", "high"))
    return Point(float(line["k"]), value, low, high)


def _lines(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(read_text(path).splitlines())) if path.is_file() else []
