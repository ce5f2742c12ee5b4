"""Targeted PGD on z_t - z_y over the classes nearest to the true one (MultiTargeted, Gowal et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from apd_bench.attacks.losses import targeted_margin
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.pgd import lengths
from apd_bench.attacks.result import AttackResult
from apd_bench.attacks.search import Search, ascend, attacking
from apd_bench.specs import ThreatModel


def pgd_targeted(
    classifier: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    sample_ids: Sequence[str],
    seed: int = 0,
    steps: int = 20,
    step: float = 0.25,
    schedule: str = "cosine",
    targets: int = 9,
    start: str = "uniform",
) -> AttackResult:
    """PGD towards each of the `targets` strongest wrong classes in turn; survivors of one go on to the next."""
    with attacking(classifier, pixels, labels, threat, sample_ids, seed) as search:
        ordered = ranked_targets(search, targets)
        if ordered.shape[1] != targets:
            search.effective["targets"] = ordered.shape[1]
        for place in range(ordered.shape[1]):
            toward(search, ordered[:, place], lengths(steps, step * threat.eps, schedule), place, start)
    return search.result()


def ranked_targets(search: Search, count: int) -> Tensor:
    """The min(count, K-1) wrong classes with the largest clean logits, strongest first, as [B, T].

    The true class is left out by its label and not by its rank, so that no attack can repair a sample.
    """
    wrong = search.logits.scatter(1, search.labels[:, None], float("-inf"))
    return wrong.argsort(dim=1, descending=True, stable=True)[:, : min(count, search.num_classes - 1)]


def toward(search: Search, t: Tensor, α: Sequence[float], place: int, start: str = "uniform") -> None:
    """Ascends z_t - z_y from a random point for all that stand; t [B] are the targets, α the step lengths."""
    for rows in search.batches():
        x = search.random(rows, "targeted", place) if start == "uniform" else search.region.x0[rows]

        def loss(z: Tensor, rows: Tensor) -> Tensor:
            return targeted_margin(z, search.labels[rows], t[rows])

        ascend(search, rows, x, loss, α)
