"""The attacks that others are measured against: none, uniform noise, one gradient step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from apd_bench.attacks.losses import LOSSES
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.result import AttackResult
from apd_bench.attacks.search import ascend, attacking
from apd_bench.specs import ThreatModel


def none(
    classifier: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    sample_ids: Sequence[str],
    seed: int = 0,
) -> AttackResult:
    """The unchanged images: only misclassified samples are broken."""
    with attacking(classifier, pixels, labels, threat, sample_ids, seed) as search:
        pass
    return search.result()


def noise(
    classifier: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    sample_ids: Sequence[str],
    seed: int = 0,
    draws: int = 1,
) -> AttackResult:
    """Uniform noise within the ball; `draws` tries for each sample. An attack that is no better is masked."""
    with attacking(classifier, pixels, labels, threat, sample_ids, seed) as search:
        for draw in range(draws):
            for rows in search.batches():
                x = search.random(rows, "noise", draw)
                search.see(rows, x, search.meter.predict(x))
    return search.result()


def fgsm(
    classifier: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    sample_ids: Sequence[str],
    seed: int = 0,
    loss: str = "stable-ce",
) -> AttackResult:
    """One step of length eps from the image itself (Goodfellow et al., ICLR 2015)."""
    with attacking(classifier, pixels, labels, threat, sample_ids, seed) as search:
        objective = LOSSES[loss]
        for rows in search.batches():
            ascend(
                search, rows, search.region.x0[rows], lambda z, rows: objective(z, search.labels[rows]), [threat.eps]
            )
    return search.result()
