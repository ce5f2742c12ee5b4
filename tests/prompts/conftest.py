"""A tiny open_clip model with seeded random weights, and a way to make any learner on it."""

import pytest
import torch

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.configs import ALL_OFFERS
from apd_bench.backbones.load import instantiate, tokenizer_of
from apd_bench.core.specs import BackboneSpec
from apd_bench.core.targets import resolve
from apd_bench.prompts.catalog import LEARNERS

NAMES = ("cat", "x_ray", "ice cream cone")
TEMPLATE = "a photo of a {}, a kind of thing."
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 4, "head_width": 16},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3},
}


def tiny(**changes):
    config = CONFIG | changes
    spec = BackboneSpec(
        name="toy", architecture="toy", weights="random", activation="gelu", image_size=16, offers=ALL_OFFERS
    )
    return Backbone(instantiate(config), tokenizer_of("ViT-B-32", config), spec, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="session")
def backbone():
    return tiny()


@pytest.fixture(scope="session")
def make(backbone):
    def make(kind, names=NAMES, template=TEMPLATE, seed=0, **options):
        learner = resolve(LEARNERS[kind], object)
        return learner(backbone, names, template, options, torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
