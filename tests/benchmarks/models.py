"""What the parts measure on: classifiers of embedded sets and of made-up classes, and our attacks by their names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from apd_bench import attacks
from apd_bench.attacks.meter import Meter
from apd_bench.attacks.search import AttackResult
from apd_bench.backbones.adapter import Backbone
from apd_bench.core.registry import DATASETS
from apd_bench.core.specs import ThreatModel
from apd_bench.data.protocols import limit_split
from apd_bench.data.splits import ImageSplit, load_dataset
from apd_bench.prompts.classifier import Classifier
from apd_bench.training import prompt_states as states

SETS = ("animals", "food", "vehicles")
TEMPLATE = "a photo of a {}."
VIT_B32, VIT_B16 = "ViT-B-32-quickgelu/random", "ViT-B-16-quickgelu/random"
WORDS = ("river", "stone", "cloud", "engine", "window", "garden", "copper", "violin", "harbour", "lantern")


@dataclass(frozen=True)
class Samples:
    """A set's classifier with pixels [B, 3, H, W], labels [B] and ids of its samples."""

    classifier: Classifier
    pixels: Tensor
    labels: Tensor
    ids: tuple[str, ...]


def zero_shot(backbone: Backbone, dataset: str, limit: int) -> tuple[Classifier, ImageSplit]:
    """The zero-shot classifier of a set, and `limit` fixed test samples."""
    data = load_dataset(DATASETS.get(dataset), image_size=backbone.shapes.image_size)
    return states.zero_shot(backbone, data.classes, data.template), limit_split(data.test, limit)


def embedded_samples(backbone: Backbone, datasets: Sequence[str], limit: int) -> Iterator[Samples]:
    """`limit` fixed test samples of each set."""
    for name in datasets:
        yield samples_of(*zero_shot(backbone, name, limit))


def samples_of(classifier: Classifier, test: ImageSplit) -> Samples:
    """All samples of a split, on the classifier's device."""
    device = classifier.backbone.device
    return Samples(classifier, test.pixels(range(len(test))).to(device), test.labels.to(device), tuple(test.ids))


def made_up(backbone: Backbone, batch: int, classes: int = 10) -> Samples:
    """Noise images, whose labels are what a classifier of random classes takes them for."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(classes, backbone.shapes.embed_dim, generator=generator).to(backbone.device)
    classifier, pixels = Classifier(backbone, functional.normalize(text, dim=-1)), noise(backbone, batch)
    with torch.no_grad():
        labels = classifier(pixels).argmax(1)
    return Samples(classifier, pixels, labels, tuple(f"made-up-{row}" for row in range(batch)))


def noise(backbone: Backbone, batch: int) -> Tensor:
    """Uniform pixels [B, 3, H, W]."""
    size = backbone.shapes.image_size
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(backbone.device)


def class_names(count: int) -> tuple[str, ...]:
    """`count` different names of two or three short words."""
    pairs = [f"{first} {second}" for first in WORDS for second in WORDS]
    return tuple(f"{pairs[i % 100]} {i // 100}" if i >= 100 else pairs[i] for i in range(count))


def attack(text: str, samples: Samples, threat: ThreatModel, *, seed: int = 0, persist: bool = False) -> AttackResult:
    """The result of one of our attacks; with `persist` no sample leaves when it is broken."""
    meter = Meter(samples.classifier, persist=persist)
    return attacks.run(text, meter, samples.pixels, samples.labels, threat, samples.ids, seed)
