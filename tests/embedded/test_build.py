"""The scripts that made the embedded instance, on made-up inputs."""

import numpy as np
import pytest
import torch

pytest.importorskip("baselines.embedded", reason="the build scripts are not in the wheel")

from baselines.embedded import loop, model
from baselines.embedded.catalogue import parse_themes, synonym_table
from baselines.embedded.checkpoint import load_state, save_state
from baselines.embedded.compose import compose
from baselines.embedded.muon import orthogonalised
from baselines.embedded.names import concept_of, contains
from baselines.embedded.robust import BUDGET, attack_half


@pytest.mark.parametrize(("icon", "words"), [
    ("cat-face-outline", ("cat",)),
    ("baseline-light-bulb-24", ("baseline", "light", "bulb")),
    ("dog2", ("dog",)),
    ("outline-16", ()),
    ("cat-off", ("cat", "off")),
])  # fmt: skip
def test_concept_of_an_icon_name(icon, words):
    assert concept_of(icon) == words


def test_words_are_found_in_a_row_and_every_synonym_names_one_class():
    assert contains(("hot", "ice", "cream"), ("ice", "cream"))
    assert not contains(("ice", "hot", "cream"), ("ice", "cream"))
    table = synonym_table()
    names = [name for classes in parse_themes().values() for name in classes]
    assert len(names) == len(set(names))
    assert {label for _, label in table.values()} == set(names)


def test_deal_keeps_look_alikes_together():
    corpus = pytest.importorskip("baselines.embedded.corpus")
    rng = np.random.default_rng(0)
    base = np.repeat(rng.normal(size=(60, 400)), 2, axis=0)
    vectors = base + 0.02 * rng.normal(size=base.shape)
    vectors -= vectors.mean(1, keepdims=True)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    split = corpus.deal(vectors, np.random.default_rng(1))
    assert set(split.tolist()) == {corpus.PRETRAIN, corpus.TRAIN, corpus.VAL, corpus.TEST}
    assert (split[::2] == split[1::2]).all()


def test_pictures_are_seeded_and_stay_in_range():
    drawing = torch.zeros(8, 48, 48, 4, dtype=torch.uint8)
    drawing[:, 12:36, 12:36, 3] = 255
    mono = torch.tensor([True, False] * 4)
    first, again, other = (compose(drawing, mono, 0.7, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert first.shape == (8, 3, 40, 40)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= first.min() <= first.max() <= 1
    # The drawing can be seen: its colour differs from the corner's.
    gap = (first[:, :, 18:22, 18:22].mean((2, 3)) - first[:, :, :2, :2].mean((2, 3))).abs().amax(1)
    assert (gap > 0.1).all()


def test_orthogonalised_pushes_singular_values_towards_one():
    stack = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(stack))
    assert values.min() > 0.3
    assert values.max() < 1.5


def test_the_rate_warms_up_and_decays_and_the_loss_is_lowest_for_matching_pairs():
    values = [loop.factor(step, 10, 60, 100) for step in (0, 9, 10, 59, 60, 80, 100)]
    assert values == [0.1, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]
    texts = torch.eye(4)
    scale = torch.tensor(20.0)
    assert loop.two_positive_loss(torch.stack([texts, texts]), texts, scale) < 0.8
    assert loop.two_positive_loss(torch.stack([texts, texts.roll(1, 0)]), texts, scale) > 5


def test_checkpoint_restores_weights_and_optimiser(tmp_path):
    torch.manual_seed(0)
    net = model.build_model()
    tools = loop.optimisers(net, 1e-3, 5e-3)
    tokens = model.tokenizer()(["a cat"])
    (model.text_features(net, tokens) @ model.image_features(net, torch.rand(1, 3, 40, 40)).T).sum().backward()
    for tool in tools:
        tool.step()
    save_state(tmp_path, net, tools, 7)
    fresh = model.build_model()
    fresh_tools = loop.optimisers(fresh, 1e-3, 5e-3)
    assert load_state(tmp_path, fresh, fresh_tools) == 7
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name])
    for tool, fresh_tool in zip(tools, fresh_tools, strict=True):
        assert tool.state_dict()["state"].keys() == fresh_tool.state_dict()["state"].keys()
    assert load_state(tmp_path / "nothing", fresh, fresh_tools) == 0


def test_robust_attack_touches_the_second_half_within_the_budget():
    torch.manual_seed(0)
    net = model.build_model()
    pictures = torch.rand(6, 3, 40, 40)
    texts = torch.nn.functional.normalize(torch.randn(3, 128), dim=1)
    attacked = attack_half(net, model.image_features, pictures, texts, torch.Generator().manual_seed(0))
    assert torch.equal(attacked[:3], pictures[:3])
    change = (attacked[3:] - pictures[3:]).abs()
    assert 0 < change.max() <= BUDGET + 1e-6
    assert 0 <= attacked.min() <= attacked.max() <= 1
    assert all(parameter.requires_grad for parameter in net.parameters())
