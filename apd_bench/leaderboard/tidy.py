"""Records as measurements: the one place of the boards that knows where a record keeps what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apd_bench.core.identity import digest
from apd_bench.core.specs import Cell
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import Record

_FIRST_ATTACKS = ("none", "noise", "fgsm", "pgd", "cw")
EXTRA = ("distance",)  # what boards read of the further columns of outcomes
_PACKAGES = ("torch", "open_clip_torch", "pyautoattack", "torchattacks")


@dataclass(frozen=True)
class Evidence:
    """Per-sample outcomes of one cell, sorted by sample id; all arrays have the length of `ids`."""

    ids: NDArray[np.str_]
    clean_right: NDArray[np.bool_]
    robust: NDArray[np.bool_]
    distance: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, outcomes: Outcomes, shared: "Shared") -> "Evidence":
        """From the outcomes of a store; `shared` makes equal ids one array."""
        order, ids = shared.sorted_ids(outcomes.sample_id)
        right = outcomes.clean_prediction == outcomes.label
        columns: dict[str, NDArray[Any]] = {"clean_right": right, "robust": right & ~outcomes.broken}
        if "distance" in outcomes.extra:
            columns["distance"] = np.asarray(outcomes.extra["distance"], dtype=np.float64)
        return cls(ids=ids, **{name: column if order is None else column[order] for name, column in columns.items()})


class Shared:
    """Sample ids, sorted once for all records that have the same ones.

    Arrays are known by their place in memory; they are kept, so no other one gets it.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[NDArray[np.str_], NDArray[np.int64] | None, NDArray[np.str_]]] = {}
        self._sorted: dict[tuple[str, bytes], NDArray[np.str_]] = {}

    def sorted_ids(self, ids: NDArray[np.str_]) -> tuple[NDArray[np.int64] | None, NDArray[np.str_]]:
        """The order that sorts `ids` (None where they are sorted), and the sorted ids."""
        if id(ids) in self._known:
            return self._known[id(ids)][1:]
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        ordered = self._sorted.setdefault((ordered.dtype.str, ordered.tobytes()), ordered)
        found = None if np.array_equal(order, np.arange(len(order))) else order
        if not ids.flags.writeable:  # the columns that a store shares among its outcomes
            self._known[id(ids)] = (ids, found, ordered)
        return found, ordered


@dataclass(frozen=True)
class Measurement:
    """One record as boards sort it; `evidence` is None where it has no per-sample outcomes.

    `attack` is the name of its column. The digests `backbone_key`, `dataset_key` and `variant` (recipe and training
    budget) tell apart what has the same name; `fit` and `timing` are those of the record. Of a defended cell, `members`
    has who was broken once each member of the attack had run, `share` the repeated predictions that are right, both by
    sample id, and `prediction` what one costs.
    """

    id: str
    cell: Cell
    status: str
    attack: str
    backbone_key: str
    dataset_key: str
    variant: str
    distance_attack: bool
    fit: Mapping[str, Any]
    timing: Mapping[str, Any]
    software: Mapping[str, str]
    suspect: tuple[str, ...] = ()
    error: str = ""
    created: str = ""
    evidence: Evidence | None = None
    members: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    share: NDArray[np.float64] | None = None
    prediction: Mapping[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """True when the record is a success with per-sample outcomes."""
        return self.status == "success" and self.evidence is not None

    @property
    def method(self) -> str:
        """The name of the method."""
        return self.cell.fit.method.name

    @property
    def trains(self) -> bool:
        """False for a method that learns nothing."""
        return self.cell.fit.method.trains

    @property
    def seed(self) -> int:
        """The seed; 0 for a method that learns nothing."""
        return self.cell.fit.seed if self.trains else 0

    @property
    def shots(self) -> int:
        """Training images per class, -1 for all; 0 for a method that learns nothing."""
        return self.cell.fit.shots if self.trains else 0


def column_of(label: str) -> str:
    """The name of an attack's column: the suite `worst` must not be taken for the worst case over all columns."""
    return f"{label} (suite)" if label in ("worst", "clean") else label


def measurement(record: Record, outcomes: Outcomes | None, shared: Shared | None = None) -> Measurement:
    """`record` with its outcomes; many measurements with the same `shared` share what they can."""
    cell, fit, shared = record.cell, record.cell.fit, shared or Shared()
    return Measurement(
        id=record.id,
        cell=cell,
        status=record.status,
        attack=column_of(cell.attack.label),
        backbone_key=digest([fit.backbone, cell.precision], 8),
        dataset_key=digest(cell.dataset, 8),
        variant=digest([fit.method, fit.train_eps] if fit.method.trains else [fit.method], 8),
        distance_attack="median_distance" in record.metrics,
        fit=record.fit,
        timing=record.timing,
        software=_software(record.environment),
        suspect=record.suspect,
        error=str((record.error or {}).get("message") or ""),
        created=record.created,
        evidence=None if outcomes is None or not record.done else Evidence.of(outcomes, shared),
        **({} if outcomes is None or cell.defence is None else _of_defence(record, outcomes)),
    )


def _of_defence(record: Record, outcomes: Outcomes) -> dict[str, Any]:
    """The further facts of a defended cell; samples are sorted as those of its evidence."""
    order = np.argsort(outcomes.sample_id, kind="stable")
    extra = outcomes.extra
    named = [(name, f"broken_{name}") for name in record.effective.get("members", ())]
    return {
        "members": {name: extra[column].astype(bool)[order] for name, column in named if column in extra},
        "share": extra["share"].astype(float)[order] if "share" in extra else None,
        "prediction": record.effective.get("prediction", {}),
    }


def attack_order(attack: str) -> tuple[int, int, str]:
    """The declared order of attack columns: cheap single attacks first, AutoAttack last."""
    name = attack.partition("(")[0]
    first = _FIRST_ATTACKS.index(name) if name in _FIRST_ATTACKS else len(_FIRST_ATTACKS)
    return (int(name == "autoattack"), first, attack)


def _software(environment: Mapping[str, Any]) -> dict[str, str]:
    """What the record was measured with, as far as boards mention it: versions, commit, plug-ins, device."""
    packages = environment.get("packages") or {}
    plugins = sorted(f"{name} of {source}" for name, source in (environment.get("plugins") or {}).items())
    found = {
        "apd-bench": environment.get("apd_bench"),
        "commit": environment.get("commit"),
        "dirty": environment.get("dirty"),
        **{name: packages.get(name) for name in _PACKAGES},
        "device": environment.get("device_name") or environment.get("device"),
        "plug-ins": ", ".join(plugins),
    }
    return {name: str(value) for name, value in found.items() if value}
