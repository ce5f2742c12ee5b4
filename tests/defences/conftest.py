"""A real model of the package and some of its images, with the defences on it."""

import pytest
import torch

from apd_bench.backbones.load import load_backbone
from apd_bench.core.registry import DATASETS
from apd_bench.data.splits import load_dataset
from apd_bench.defences.parse import make_defence
from apd_bench.training.prompt_states import zero_shot
from tests.attacks.conftest import killed_after as killed_after
from tests.attacks.conftest import small_net as small_net

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny():
    """The zero-shot classifier of tiny-clean on a set of the package, the first images of it and their labels."""
    backbone = load_backbone("tiny-clean")
    data = load_dataset(DATASETS.get("food"), image_size=backbone.shapes.image_size)
    count = 100
    return (
        zero_shot(backbone, data.classes, data.template),
        data.test.pixels(list(range(count))),
        torch.as_tensor(data.test.labels[:count]),
    )


@pytest.fixture
def defended(tiny):
    """Makes a defence of the zero-shot classifier."""
    return lambda text: make_defence(text, tiny[0])
