"""Records as flat, typed measurements: the one place of the boards that knows where a record keeps what."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apd_bench.identity import digest
from apd_bench.records import Outcomes, Record
from apd_bench.specs import MethodRecipe, format_eps

_FIRST_ATTACKS = ("none", "noise", "fgsm", "pgd", "cw", "cw-linf", "apgd", "aa-light")
_LAST_ATTACKS = ("autoattack",)
EXTRA = ("distance",)  # what boards read of the further columns of outcomes
_PACKAGES = ("torch", "open_clip_torch", "pyautoattack", "torchattacks")


@dataclass(frozen=True)
class Threat:
    """What the attacker may do, as it stands in a record; `eps` in [0,1] pixel units."""

    norm: str
    eps: float
    knowledge: str
    space: str
    source: str

    @property
    def label(self) -> str:
        """One line for a heading: norm, eps in both spellings, knowledge, where the change acts."""
        origin = f" from {self.source}" if self.source else ""
        return (
            f"{self.norm}, eps {format_eps(self.eps, self.norm)} ({self.eps:.5f}), "
            f"{self.knowledge.replace('_', '-')}{origin}, at {self.space.replace('_', ' ')} size"
        )

    @property
    def short(self) -> str:
        """The threat as a column value."""
        origin = f" from {self.source}" if self.source else ""
        place = "" if self.space == "model_input" else f" at {self.space} size"
        return f"{self.norm} {format_eps(self.eps, self.norm)} {self.knowledge.replace('_', '-')}{origin}{place}"


@dataclass(frozen=True)
class Evidence:
    """Per-sample outcomes of one cell, sorted by sample id; all arrays have the length of `ids`."""

    ids: NDArray[np.str_]
    label: NDArray[np.int32]
    clean_right: NDArray[np.bool_]
    robust: NDArray[np.bool_]
    clean_prediction: NDArray[np.int32]
    adversarial_prediction: NDArray[np.int32]
    distance: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, outcomes: Outcomes, shared: Shared) -> Evidence:
        """From the outcomes of a store; `shared` makes equal ids one array."""
        order, ids = shared.sorted_ids(outcomes.sample_id)
        clean_right = outcomes.clean_prediction == outcomes.label
        distance = outcomes.extra.get("distance")
        columns: dict[str, NDArray[Any]] = {
            "label": outcomes.label,
            "clean_right": clean_right,
            "robust": clean_right & ~outcomes.broken,
            "clean_prediction": outcomes.clean_prediction,
            "adversarial_prediction": outcomes.adversarial_prediction,
        }
        if distance is not None:
            columns["distance"] = np.asarray(distance, dtype=np.float64)
        return cls(ids=ids, **{name: column if order is None else column[order] for name, column in columns.items()})


class Shared:
    """What many records have in common, made once: sorted sample ids, and the digests of specs.

    Objects are known by their place in memory; they are kept, so no other object gets it.
    """

    def __init__(self) -> None:
        self._marks: dict[tuple[object, ...], tuple[object, str]] = {}
        self._known: dict[int, tuple[NDArray[np.str_], NDArray[np.int64] | None, NDArray[np.str_]]] = {}
        self._sorted: dict[tuple[str, bytes], NDArray[np.str_]] = {}

    def mark(self, form: object, spec: object, *values: Hashable) -> str:
        """`digest(form, 8)` for a `form` that is made of `spec` and `values` alone."""
        key = (id(spec), *values)
        if key not in self._marks:
            self._marks[key] = (spec, digest(form, 8))
        return self._marks[key][1]

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
    """One record, flattened; `evidence` is None where the record has no per-sample outcomes."""

    id: str
    status: str
    backbone: str
    backbone_title: str
    backbone_key: str
    training: str
    method: str
    method_title: str
    paper: str
    variant: str
    trains: bool
    dataset: str
    dataset_title: str
    dataset_key: str
    group: str
    source_dataset: str
    classes: str
    fit_classes: str
    task: str
    shots: int
    seed: int
    train_eps: float | None
    threat: Threat
    attack: str
    attack_version: int
    distance_attack: bool
    protocol: tuple[tuple[str, str], ...]
    fit_id: str
    recipe: MethodRecipe
    prompts: str = ""
    suspect: tuple[str, ...] = ()
    parameters: int | None = None
    collapsed: bool = False
    train_seconds: float | None = None
    attack_seconds: float | None = None
    forwards: float | None = None
    backwards: float | None = None
    software: tuple[tuple[str, str], ...] = ()
    error: str = ""
    created: str = ""
    evidence: Evidence | None = None

    @property
    def done(self) -> bool:
        """True when the record is a success with per-sample outcomes."""
        return self.status == "success" and self.evidence is not None


def column_of(label: str) -> str:
    """The name of an attack's column: the suite `worst` must not be taken for the worst case over all columns."""
    return f"{label} (suite)" if label in ("worst", "clean") else label


def measurement(record: Record, outcomes: Outcomes | None, shared: Shared | None = None) -> Measurement:
    """`record` with its outcomes as one flat row; many rows with the same `shared` share what they can."""
    cell, fit, shared = record.cell, record.cell.fit, shared or Shared()
    backbone, method, dataset, threat = fit.backbone, fit.method, cell.dataset, cell.threat
    return Measurement(
        id=record.id,
        status=record.status,
        backbone=backbone.name,
        backbone_title=backbone.title or backbone.name,
        backbone_key=shared.mark([backbone, cell.precision], backbone, cell.precision),
        training=backbone.training,
        method=method.name,
        method_title=method.title or method.name,
        paper=method.paper,
        variant=shared.mark([method, fit.train_eps, sorted(fit.exclude)], method, fit.train_eps, *fit.exclude)
        if method.trains
        else shared.mark([method], method),
        trains=method.trains,
        dataset=dataset.name,
        dataset_title=dataset.title or dataset.name,
        dataset_key=shared.mark(dataset, dataset),
        group=dataset.group,
        source_dataset=fit.dataset.name,
        classes=cell.classes,
        fit_classes=fit.classes,
        task=cell.task,
        shots=fit.shots if method.trains else 0,
        seed=fit.seed if method.trains else 0,
        train_eps=fit.train_eps,
        threat=Threat(threat.norm, threat.eps, threat.knowledge, threat.space, threat.source or ""),
        attack=column_of(cell.attack.label),
        attack_version=cell.attack.version,
        distance_attack="median_distance" in record.metrics,
        protocol=_protocol(record),
        fit_id=fit.id,
        recipe=method,
        prompts=str(record.fit.get("digest") or ""),
        suspect=record.suspect,
        parameters=_whole(record.fit.get("num_parameters", record.fit.get("parameters"))),
        collapsed=bool(record.fit.get("collapsed")),
        train_seconds=_number(record.fit.get("seconds")),
        attack_seconds=_number(record.timing.get("attack_seconds")),
        forwards=_number(record.timing.get("forwards")),
        backwards=_number(record.timing.get("backwards")),
        software=_software(record.environment),
        error=str((record.error or {}).get("message") or ""),
        created=record.created,
        evidence=None if outcomes is None or not record.done else Evidence.of(outcomes, shared),
    )


def attack_order(attack: str) -> tuple[int, int, str]:
    """The declared order of attack columns: cheap single attacks first, AutoAttack last."""
    name = attack.partition("(")[0]
    if name in _LAST_ATTACKS:
        return (2, _LAST_ATTACKS.index(name), attack)
    if name in _FIRST_ATTACKS:
        return (0, _FIRST_ATTACKS.index(name), attack)
    return (1, 0, attack)


def _protocol(record: Record) -> tuple[tuple[str, str], ...]:
    cell = record.cell
    parts = {
        "split": cell.split,
        "test samples": "all" if cell.limit is None else f"at most {cell.limit} per dataset",
        "precision": cell.precision,
        "resize": cell.fit.resize,
        "attack seed": str(cell.attack_seed),
    }
    if cell.test_resize != cell.fit.resize:
        parts["resize of test images"] = cell.test_resize
    return tuple(parts.items())


def _software(environment: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What the record was measured with, as far as boards mention it: versions, commit, plug-ins, device."""
    packages = environment.get("packages") or {}
    found = {
        "apd-bench": environment.get("apd_bench"),
        "commit": environment.get("commit"),
        "dirty": "yes" if environment.get("dirty") else None,
        **{name: packages.get(name) for name in _PACKAGES},
        "device": environment.get("device_name") or environment.get("device"),
    }
    plugins = sorted(f"{name} of {source}" for name, source in (environment.get("plugins") or {}).items())
    found["plug-ins"] = ", ".join(plugins) or None
    return tuple((name, str(value)) for name, value in found.items() if value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
