"""Budgets from small to large: what breaks within 1/255 is broken within 4/255 and is not attacked again. Opt-in.

The point found within the smaller budget lies within the larger one, so the verdict is sound, and the robust accuracy
is never above that of the plain path: an attack with larger steps may miss what the smaller one found. Who was taken
over is written down for every sample (the column `smaller_budget`), and from which cell in `effective`.

A cell depends on the next smaller budget of its own plan and on nothing else, and waits for it; so the numbers do not
depend on the order of work, on interruptions, or on what else the store holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from apd_bench.identity import digest
from apd_bench.records import Outcomes
from apd_bench.registry import ATTACKS
from apd_bench.runner.tasks import CellDone
from apd_bench.specs import Cell

COLUMN = "smaller_budget"


def smaller_budgets(cells: Iterable[Cell]) -> dict[str, Cell]:
    """For the id of a cell, the cell that differs from it only by the next smaller budget above 0."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.threat.eps > 0 and ATTACKS.get(cell.attack.name).kind == "ball":
            groups.setdefault(digest(replace(cell, threat=replace(cell.threat, eps=0.0))), []).append(cell)
    found: dict[str, Cell] = {}
    for group in groups.values():
        group.sort(key=lambda cell: cell.threat.eps)
        found |= {larger.id: smaller for smaller, larger in pairwise(group)}
    return found


def broken_part(outcomes: Outcomes) -> Outcomes:
    """The samples that are broken, by themselves or by the attack."""
    return _rows(outcomes, np.flatnonzero(outcomes.broken))


def rows_left(ids: Sequence[str], carried: Outcomes) -> list[int]:
    """The places of the samples in `ids` that still have to be attacked."""
    known = set(carried.sample_id.tolist())
    return [place for place, name in enumerate(ids) if name not in known]


def with_carried(done: CellDone, carried: Outcomes, ids: Sequence[str], origin: Mapping[str, Any]) -> CellDone:
    """`done`, measured on the samples that were left of `ids`, together with those taken over from `origin`.

    Diagnostics, seconds and passes stay those of the samples that were attacked here.
    """
    wanted = set(ids)
    taken = _rows(carried, np.flatnonzero([name in wanted for name in carried.sample_id.tolist()]))
    parts = [part for part in (_marked(done.outcomes, False), _marked(taken, True)) if len(part)]
    common = set.intersection(*(set(part.extra) for part in parts)) if parts else set()
    parts = [replace(part, extra={name: part.extra[name] for name in sorted(common)}) for part in parts]
    outcomes = Outcomes.merge(parts, list(ids)) if parts else done.outcomes
    n = len(outcomes)
    metrics = {
        **done.metrics,
        "n": n,
        "clean_accuracy": float((outcomes.clean_prediction == outcomes.label).mean()) if n else 0.0,
        "robust_accuracy": 1 - float(outcomes.broken.mean()) if n else 0.0,
    }
    return replace(done, metrics=metrics, outcomes=outcomes, effective={**done.effective, COLUMN: dict(origin)})


def alike(parts: Sequence[Outcomes]) -> list[Outcomes]:
    """The shards of a cell, all with the column `smaller_budget` where one has it: a resumed run may share later."""
    if not any(COLUMN in part.extra for part in parts):
        return list(parts)
    return [part if COLUMN in part.extra else _marked(part, False) for part in parts]


def origin_of(cell: Cell) -> dict[str, Any]:
    """What a record says about the cell whose broken samples it took over."""
    return {"cell": cell.id, "eps": cell.threat.eps}


def _rows(outcomes: Outcomes, rows: Any) -> Outcomes:
    return Outcomes(
        sample_id=outcomes.sample_id[rows],
        label=outcomes.label[rows],
        clean_prediction=outcomes.clean_prediction[rows],
        adversarial_prediction=outcomes.adversarial_prediction[rows],
        broken=outcomes.broken[rows],
        extra={name: column[rows] for name, column in outcomes.extra.items()},
    )


def _marked(outcomes: Outcomes, mark: bool) -> Outcomes:
    return replace(outcomes, extra={**outcomes.extra, COLUMN: np.full(len(outcomes), mark)})
