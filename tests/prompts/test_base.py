"""What every learner must do, whatever it learns."""

import copy
import dataclasses

import pytest
import torch

from apd_bench.core.errors import CorruptFile, IncompatibleChoice, UnknownName, UsageError
from apd_bench.prompts.catalog import LEARNERS
from apd_bench.prompts.classifier import Classifier, PromptedModel

TRAINED = [kind for kind in LEARNERS if kind not in ("template", "conditional")]


def logits(backbone, learner, pixels):
    if learner.by_image:
        return Classifier.from_learner(backbone, learner)(pixels)
    return PromptedModel(backbone, learner).bind()(pixels).logits


def disturb(learner):
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)) * 0.1)


@pytest.mark.parametrize("kind", TRAINED)
def test_every_learned_number_moves_the_logits_and_nothing_else_has_a_gradient(kind, make, backbone, pixels):
    learner = make(kind)
    logits(backbone, learner, pixels).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in learner.parameters())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert learner.num_parameters == sum(value.numel() for value in learner.state().values()) > 0


@pytest.mark.parametrize("kind", LEARNERS)
def test_save_load_and_rebind_keep_the_logits(kind, make, backbone, pixels):
    learner = make(kind)
    disturb(learner)
    before = logits(backbone, learner, pixels)
    other = make(kind, seed=5)
    other.load(learner.state())
    assert torch.equal(logits(backbone, other, pixels), before)
    other.rebind(("cat", "dog"))
    assert logits(backbone, other, pixels).shape == (2, 2)
    assert torch.allclose(logits(backbone, other, pixels)[:, 0], before[:, 0], atol=1e-4)
    other.rebind(learner.class_names)
    assert torch.allclose(logits(backbone, other, pixels), before, atol=1e-5)


@pytest.mark.parametrize("kind", TRAINED)
def test_a_seed_decides_every_bit_and_leaves_the_global_generator_alone(kind, make):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, same, other = make(kind, seed=1).state(), make(kind, seed=1).state(), make(kind, seed=2).state()
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_state_is_a_copy_and_one_that_does_not_fit_is_named_tensor_by_tensor(make):
    learner = make("independent")
    state = learner.state()
    assert set(state) == {"context", "deep", "tokens"}
    state["context"].zero_()
    assert learner.context.abs().sum() > 0
    learner = make("independent")
    state = learner.state()
    state["tokens"] = torch.zeros(1, 2, 3)
    state["extra"] = state.pop("deep")
    before = learner.state()
    with pytest.raises(CorruptFile) as caught:
        learner.load(state)
    for part in ("'deep' is missing", "'extra' is unexpected", "'tokens' is [1, 2, 3] instead of [4, 2, 32]"):
        assert part in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in learner.state().items())


def test_an_unknown_option_gets_the_nearest_name(make):
    with pytest.raises(UnknownName, match="Did you mean 'tokens'"):
        make("text", token=4)
    with pytest.raises(UsageError, match=r"depth = 0 must be a whole number of at least 1"):
        make("visual", depth=0)
    with pytest.raises(UsageError, match=r"tokens = True must be"):
        make("visual", tokens=True)
    with pytest.raises(UsageError, match="class_specific = 'no' must be true or false"):
        make("text", class_specific="no")
    with pytest.raises(UsageError, match="Class position 'left' is not one of: end, middle, front"):
        make("text", position="left").texts()
    with pytest.raises(UsageError, match="at least one class name"):
        make("text", names=())


@pytest.mark.parametrize("missing", ["visual_tokens", "text_tokens"])
def test_a_learner_refuses_a_backbone_without_what_it_needs(missing, make, backbone, monkeypatch):
    kept = tuple(offer for offer in backbone.spec.offers if offer != missing)
    monkeypatch.setattr(backbone, "spec", dataclasses.replace(backbone.spec, offers=kept))
    with pytest.raises(IncompatibleChoice, match=f"lacks {missing}"):
        make("independent")


def test_a_copy_learns_by_itself_on_the_same_backbone(make, backbone):
    learner = make("coupled")
    twin = copy.deepcopy(learner)
    disturb(twin)
    assert twin.backbone is backbone
    assert not torch.equal(twin.context, learner.context)


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_classifier_of_a_learner_gives_the_logits_of_training(kind, make, backbone, pixels):
    learner = make(kind)
    disturb(learner)
    expected = logits(backbone, learner, pixels)
    assert torch.equal(Classifier.from_learner(backbone, learner)(pixels), expected)
