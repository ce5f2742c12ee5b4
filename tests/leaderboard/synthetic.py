"""Records with known outcomes, made without a model."""

import numpy as np

from apd_bench.core.specs import AttackSpec, BackboneSpec, Cell, DatasetSpec, Fit, MethodRecipe, ThreatModel
from apd_bench.leaderboard.aggregate import tables
from apd_bench.leaderboard.tidy import measurement
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import Record
from apd_bench.records.store import Store

BACKBONE = BackboneSpec(name="tiny-clean", architecture="tiny", weights="w", activation="gelu", image_size=40)
ENVIRONMENT = {"apd_bench": "0.1.0", "commit": "0123456789abcdef"}


def method(name="apd", *, trains=True, **changes):
    return MethodRecipe(name=name, learner="text", objective="plain" if trains else None, **changes)


def dataset(name="food", *, group="embedded", **changes):
    return DatasetSpec(name=name, loader="nowhere:load", template="a {}", group=group, **changes)


def cell(*, method_spec=None, data=None, attack="pgd", seed=1, eps=2 / 255, norm="Linf", shots=16, **changes):
    data = data or dataset()
    source = changes.pop("source", data)
    fit_changes = changes.pop("fit", {})
    backbone = changes.pop("backbone", BACKBONE)
    fit = Fit(backbone=backbone, method=method_spec or method(), dataset=source, seed=seed, shots=shots, **fit_changes)
    return Cell(
        fit=fit, dataset=data, threat=ThreatModel(eps=eps, norm=norm), attack=AttackSpec(name=attack), **changes
    )


def outcomes(clean, robust, *, prefix="s", **extra):
    """Outcomes with label 0, where `clean` and `robust` say which samples are right before and after the attack."""
    right, kept = np.asarray(clean, dtype=bool), np.asarray(robust, dtype=bool)
    return Outcomes(
        sample_id=np.asarray([f"{prefix}{index:05d}" for index in range(len(right))]), label=np.zeros(len(right)),
        clean_prediction=np.where(right, 0, 1), adversarial_prediction=np.where(kept, 0, 2), broken=~kept,
        extra={name: np.asarray(column) for name, column in extra.items()},
    )  # fmt: skip


def record(spec, status="success", **changes):
    fit = {"num_parameters": 512, "seconds": 3.5}
    timing = {"attack_seconds": 2.0, "forwards": 200, "backwards": 100}
    values = {"environment": ENVIRONMENT, "created": "2026-01-02T03:04:05+00:00", "fit": fit, "timing": timing}
    return Record(id=spec.id, cell=spec, status=status, **values | changes)


def fill(path, items):
    store = Store(path)
    with store.writer():
        for item, result in items:
            store.put(item, result)
    return path


def tables_of(items, attacks=()):
    return tables([measurement(one, result) for one, result in items], attacks)


def drawn(shares, n, key):
    """Hits with the given shares ("clean" first), nested: what survives one attack was right before."""
    generator = np.random.default_rng(key)
    order = generator.random(n)
    return tuple(order < share for share in shares.values())


def grid(methods, datasets=("food", "places"), seeds=(1, 2, 3), n=40, **changes):
    """A complete grid: per method the clean share and each attack's share, e.g. {"apd": {"clean": .6, "pgd": .3}}."""
    found = []
    for index, (name, shares) in enumerate(methods.items()):
        trains = name != "zero_shot"
        for place, set_name in enumerate(datasets):
            for seed in seeds if trains else seeds[:1]:
                hits = drawn(shares, n, 1000 * place + seed + 17 * index)
                for attack, kept in zip(list(shares)[1:], hits[1:], strict=True):
                    spec = cell(
                        method_spec=method(name, trains=trains), data=dataset(set_name), attack=attack, seed=seed,
                        **changes,
                    )  # fmt: skip
                    found.append((record(spec), outcomes(hits[0], kept)))
    return found
