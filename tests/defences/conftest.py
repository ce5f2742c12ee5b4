"""A real model of the package and some of its images, with the defences on it."""

import pytest
import torch

from apd_bench.backbones.load import load_backbone
from apd_bench.core.registry import DATASETS
from apd_bench.data.splits import load_dataset
from apd_bench.defences.parse import make_defence
from apd_bench.prompts.classifier import Classifier
from apd_bench.prompts.visual import VisualLearner
from apd_bench.training.prompt_states import zero_shot
from tests.attacks.conftest import killed_after as killed_after
from tests.attacks.conftest import small_net as small_net

torch.set_num_threads(1)


def predict(defence, x, draw=(1,)):
    with torch.no_grad():
        return defence(x, draw)


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


@pytest.fixture(scope="session")
def prompted(tiny):
    """The same with visual prompts, which are not trained."""
    learner = tiny[0].learner
    options = {"tokens": 2, "depth": 3}
    visual = VisualLearner(
        learner.backbone, learner.class_names, learner.template, options, torch.Generator().manual_seed(3)
    )
    return Classifier.from_learner(learner.backbone, visual)


@pytest.fixture
def defended(tiny, prompted):
    """Makes a defence of the zero-shot classifier, or of one with visual prompts where it tunes those."""

    def make(text):
        learn = lambda defence: defence.learn(torch.split(tiny[1][50:], 20))  # noqa: E731
        return make_defence(text, prompted if text.startswith("tapt") else tiny[0], learn)

    return make
