"""How far the attack loop is from its limit: the same forward and backward passes with nothing in between."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from apd_bench.attacks.losses import stable_ce
from apd_bench.attacks.pgd import lengths, projected_ascent
from apd_bench.attacks.search import attacking
from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.load import load_backbone
from apd_bench.core.specs import ThreatModel
from tests.benchmarks.models import VIT_B16, VIT_B32, made_up
from tests.benchmarks.table import Request, Row, in_turn

CASES = (("tiny-clean", 64, 10), ("tiny-robust", 64, 10), (VIT_B32, 64, 1), (VIT_B16, 16, 1))  # name, batch, steps
NOBODY_BREAKS = 1e-6  # a budget below the model's own rounding: all samples stand to the last step


def rows(request: Request) -> Iterator[Row]:
    """The embedded models and the shapes of two ViTs; one model if quick."""
    for name, batch, steps in CASES[:1] if request.quick else CASES:
        yield loop_row(load_backbone(name, request.device), batch=batch, steps=steps, repeats=3 if request.quick else 9)


def loop_row(backbone: Backbone, *, batch: int, steps: int, repeats: int) -> Row:
    """The PGD loop with `batch` samples that all stand, and as many bare passes; each ends with a forward pass."""
    samples = made_up(backbone, batch)
    classifier, pixels, labels = samples.classifier, samples.pixels, samples.labels
    α = lengths(steps, NOBODY_BREAKS / 4, "cosine")
    threat = ThreatModel(eps=NOBODY_BREAKS)
    broken = 0

    def bare() -> None:
        x = pixels
        for _ in range(steps):
            x = x.detach().requires_grad_()
            torch.autograd.grad(stable_ce(classifier(x), labels).sum(), x)
        with torch.no_grad():
            classifier(x)

    with attacking(classifier, pixels, labels, threat, samples.ids, 0) as search:

        def ours() -> None:
            nonlocal broken
            rows = torch.arange(batch, device=backbone.device)
            projected_ascent(search, rows, search.region.x0[rows], search.objective(stable_ce), α)
            broken = int(search.broken.sum())

        seconds = in_turn({"limit": bare, "ours": ours}, repeats, str(backbone.device))
    what = f"PGD loop on {backbone.spec.name}, batch {batch}, {steps} steps"
    facts = {"left the active set": broken, "passes per image": 2 * steps + 1}
    return Row(part="loop", what=what, ours=seconds["ours"], limit=seconds["limit"], facts=facts)
