"""Training several seeds of one method: one after the other, against all of them in one batch, on the same fits.

Made-up images, so that it runs on any backbone; both sides do everything that a fit does after loading.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from apd_bench.backbones.adapter import Backbone
from apd_bench.bench.rows import Row, in_turn
from apd_bench.data.splits import ImageSplit, LoadedDataset
from apd_bench.methods.recipes import load_recipe
from apd_bench.specs import DatasetSpec, Fit
from apd_bench.states import PromptState
from apd_bench.together import fit_together
from apd_bench.training import fit

EPS = 1 / 255
TEMPLATE = "a photo of a {}."


class Noise:
    """Images [N, 3, S, S] of seeded noise, in memory."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.image_size = int(pixels.shape[-1])

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at `rows`."""
        return self.pixels[rows]


def noise_dataset(names: tuple[str, ...], per_class: int, image_size: int) -> LoadedDataset:
    """`per_class` images of noise for each of the classes `names`, the same for training and testing."""
    count = per_class * len(names)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, image_size, image_size), dtype=np.uint8)
    labels = torch.arange(count) % len(names)
    ids = tuple(f"noise/{place}" for place in range(count))
    split = ImageSplit("train", ids, labels, Noise(pixels), np.arange(count, dtype=np.int64))
    spec = DatasetSpec(name="noise", loader="apd_bench.bench.seeds:noise_dataset", template=TEMPLATE, group="check")
    return LoadedDataset(spec, names, TEMPLATE, split, None, split)


def seeds_row(backbone: Backbone, method: str, batch: int, names: tuple[str, ...], *, seeds: int, repeats: int) -> Row:
    """One epoch of `method` for each of `seeds` seeds; a `batch` that the classes divide is one step."""
    shots = max(-(-batch // len(names)), 1)
    data = noise_dataset(names, shots, backbone.shapes.image_size)
    changes = {"epochs": 1, "batch_size": batch, "warmup_epochs": 0, "augment": "none"}
    recipe = load_recipe(method, {"training": changes})
    fits = [
        Fit(backbone=backbone.spec, method=recipe, dataset=data.spec, seed=seed, shots=shots, train_eps=EPS)
        for seed in range(1, seeds + 1)
    ]
    device = backbone.device

    def apart() -> list[PromptState]:
        return [fit(plan, backbone, data, device=device) for plan in fits]

    def together() -> list[PromptState]:
        return fit_together(fits, backbone, data, device=device)

    differ = max(
        float((one.state[name] - other.state[name]).abs().max())
        for one, other in zip(apart(), together(), strict=True)
        for name in one.state
        if one.state[name].numel()
    )
    seconds = in_turn({"apart": apart, "together": together}, repeats, str(device), warm=False)
    return Row(
        part="train",
        what=f"{seeds} seeds of {method} on {backbone.spec.name}, {len(names)} classes, batch {batch}: "
        "one after the other / in one batch",
        usual=seconds["apart"],
        ours=seconds["together"],
        facts={"images": len(names) * shots, "prompts differ by": f"{differ:.1e}"},
    )
