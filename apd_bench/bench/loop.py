"""How far the attack loop is from its limit: the same forward and backward passes with nothing in between."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from apd_bench.attacks.losses import stable_ce
from apd_bench.attacks.pgd import lengths
from apd_bench.attacks.search import ascend, attacking
from apd_bench.backbones.adapter import Backbone
from apd_bench.bench.rows import Row, in_turn
from apd_bench.classifier import Classifier
from apd_bench.specs import ThreatModel

CLASSES = 10
_NOBODY_BREAKS = 1e-6  # a budget below the model's own rounding: all samples stand to the last step


def made_up(backbone: Backbone, batch: int) -> tuple[Classifier, Tensor, Tensor]:
    """A classifier of random classes, images [B, 3, H, W], and as labels [B] what it takes them for."""
    size, device = backbone.shapes.image_size, backbone.device
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(CLASSES, backbone.shapes.embed_dim, generator=generator).to(device)
    classifier = Classifier(backbone, functional.normalize(text, dim=-1))
    pixels = torch.rand(batch, 3, size, size, generator=generator).to(device)
    with torch.no_grad():
        labels = classifier(pixels).argmax(1)
    return classifier, pixels, labels


def loop_row(backbone: Backbone, *, batch: int, steps: int, repeats: int) -> Row:
    """The PGD loop with `batch` samples that all stand, and as many bare passes; each ends with a forward pass."""
    classifier, pixels, labels = made_up(backbone, batch)
    device = backbone.device
    α = lengths(steps, _NOBODY_BREAKS / 4, "cosine")
    threat, ids = ThreatModel(eps=_NOBODY_BREAKS), [str(place) for place in range(batch)]
    broken = 0

    def bare() -> None:
        x = pixels
        for _ in range(steps):
            x = x.detach().requires_grad_()
            torch.autograd.grad(stable_ce(classifier(x), labels).sum(), x)
        with torch.no_grad():
            classifier(x)

    with attacking(classifier, pixels, labels, threat, ids, 0) as search:

        def ours() -> None:
            nonlocal broken
            rows = torch.arange(batch, device=device)

            def loss(z: Tensor, rows: Tensor) -> Tensor:
                return stable_ce(z, search.labels[rows])

            ascend(search, rows, search.region.x0[rows], loss, α)
            broken = int(search.broken.sum())

        seconds = in_turn({"limit": bare, "ours": ours}, repeats, str(device))
    return Row(
        part="loop",
        what=f"PGD loop on {backbone.spec.name}, batch {batch}, {steps} steps",
        ours=seconds["ours"],
        limit=seconds["limit"],
        facts={"left the active set": broken, "passes per image": 2 * steps + 1},
    )
