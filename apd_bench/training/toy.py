"""A problem that trains in a second: a tiny CLIP with random weights and coloured images. For checks and tests."""

import numpy as np
import torch
from numpy.typing import NDArray

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.configs import ALL_OFFERS
from apd_bench.backbones.load import instantiate, tokenizer_of
from apd_bench.core.specs import BackboneSpec, DatasetSpec, Fit, MethodRecipe
from apd_bench.data.splits import ImageSplit, LoadedDataset

CLASSES = ("red square", "green stripes", "blue dots", "grey_noise")
TEMPLATE = "a picture of a {}."
SIZE = 16
_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": SIZE, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 3},
}


class Painted:
    """Images [N, 3, S, S] of four textures with seeded noise, in memory."""

    image_size = SIZE

    def __init__(self, per_class: int, seed: int) -> None:
        draw = np.random.default_rng(seed)
        count = per_class * len(CLASSES)
        pixels = draw.integers(40, 215, (count, 3, SIZE, SIZE))
        label = np.arange(count) % len(CLASSES)
        pixels[label == 0, 0] += 40
        pixels[label == 1, 1, ::2] += 40
        pixels[label == 2, 2, ::2, ::2] += 40
        self.pixels: NDArray[np.uint8] = pixels.astype(np.uint8)
        self.label = torch.from_numpy(label.astype(np.int64))

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at `rows`."""
        return self.pixels[rows]

    def split(self, name: str) -> ImageSplit:
        """All of the images as a split."""
        count = len(self.label)
        ids = tuple(f"toy/{name}/{place}" for place in range(count))
        return ImageSplit(name, ids, self.label, self, np.arange(count, dtype=np.int64))


def toy_backbone() -> Backbone:
    """open_clip's CLIP with 3 narrow layers a tower, seeded random weights and its usual tokenizer."""
    spec = BackboneSpec(
        name="toy", architecture="toy", weights="random", activation="gelu", image_size=SIZE, offers=ALL_OFFERS
    )
    model, tokenizer = instantiate(_CONFIG), tokenizer_of("ViT-B-32", _CONFIG)
    return Backbone(model, tokenizer, spec, mean=(0.5,) * 3, std=(0.25,) * 3, digest="random")


def toy_dataset(per_class: int = 8) -> LoadedDataset:
    """Four textures, `per_class` images each in train and test."""
    spec = DatasetSpec(name="toy", loader="apd_bench.training.toy:toy_dataset", template=TEMPLATE, group="check")
    train, test = Painted(per_class, 1), Painted(per_class, 2)
    return LoadedDataset(spec, CLASSES, TEMPLATE, train.split("train"), None, test.split("test"))


def toy_fit(
    recipe: MethodRecipe, backbone: Backbone, data: LoadedDataset, *, seed: int = 1, eps: float | None = 4 / 255
) -> Fit:
    """A fit of `recipe` on the toy problem, 4 shots a class."""
    return Fit(backbone=backbone.spec, method=recipe, dataset=data.spec, seed=seed, shots=4, train_eps=eps)
