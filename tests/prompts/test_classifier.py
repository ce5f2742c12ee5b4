"""Both views of a prompted model give the same logits; the classifier is frozen and cheap to attack."""

import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from apd_bench.core.errors import UsageError
from apd_bench.prompts.classifier import Classifier, PromptedModel, matmul_precision
from apd_bench.prompts.independent import IndependentLearner
from apd_bench.prompts.visual import VisualLearner
from tests.prompts.conftest import tiny

NAMES = ("cat", "dog", "bird")


@pytest.fixture(scope="module")
def backbone():
    return tiny(init_logit_bias=-3.0)


@pytest.fixture
def learner(backbone):
    return IndependentLearner(backbone, NAMES, "a photo of a {}.", {}, torch.Generator().manual_seed(0))


@pytest.fixture
def pixels():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def text_calls(backbone, monkeypatch):
    """Counts the calls of the text tower."""
    calls = []
    encode = backbone.encode_text
    monkeypatch.setattr(backbone, "encode_text", lambda *a, **k: calls.append(1) or encode(*a, **k))
    return calls


def test_logits_are_the_scaled_cosine_plus_the_bias(backbone, learner, pixels):
    output = PromptedModel(backbone, learner).bind()(pixels)
    prompts = learner()
    image = backbone.encode_image(pixels, prompts.visual)
    text = backbone.encode_text(learner.texts(), prompts.text)
    cosine = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1)
    assert torch.allclose(output.logits, cosine / 0.07 - 3, atol=1e-4)
    assert torch.allclose(output.image_features.norm(dim=-1), torch.ones(4))
    assert torch.allclose(output.text_features.norm(dim=-1), torch.ones(3))


def test_the_text_tower_runs_once_to_make_a_classifier_and_never_in_an_attack(backbone, learner, pixels, text_calls):
    classifier = Classifier.from_learner(backbone, learner)
    assert len(text_calls) == 1
    attacked = pixels.clone().requires_grad_()
    for _ in range(3):
        torch.autograd.grad(classifier(attacked).sum(), attacked)
    assert len(text_calls) == 1


def test_a_step_runs_the_text_tower_once_for_all_of_its_passes(backbone, learner, pixels, text_calls):
    model = PromptedModel(backbone, learner)
    bound = model.bind()
    for view in (bound, bound.detached(), bound):
        view(pixels)
    assert len(text_calls) == 1
    model.bind()
    assert len(text_calls) == 2


def test_fixed_text_is_encoded_once_and_again_for_other_classes(backbone, pixels, text_calls):
    learner = VisualLearner(backbone, NAMES, "a photo of a {}.", {}, torch.Generator().manual_seed(0))
    model = PromptedModel(backbone, learner)
    model.bind()
    model.bind()
    assert len(text_calls) == 1
    learner.rebind(["fish"])
    assert model.bind()(pixels).logits.shape == (4, 1)
    assert len(text_calls) == 2


def test_a_detached_model_has_the_same_logits_and_no_graph_to_the_prompts(backbone, learner, pixels):
    bound = PromptedModel(backbone, learner).bind()
    attacked = pixels.clone().requires_grad_()
    logits = bound.detached()(attacked).logits
    assert torch.equal(logits, bound(pixels).logits)
    logits.sum().backward()
    assert attacked.grad is not None
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_the_classifier_is_frozen_keeps_its_prompts_and_gives_the_pixels_alone_a_gradient(backbone, learner, pixels):
    classifier = Classifier.from_learner(backbone, learner)
    before = classifier(pixels)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(1.0)
    assert torch.equal(classifier(pixels), before)
    classifier.train()
    assert not any(module.training for module in classifier.modules())
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
    assert set(classifier.state_dict()) >= {"text_features", "visual_tokens"}
    attacked = pixels.clone().requires_grad_()
    classifier(attacked).sum().backward()
    assert attacked.grad.abs().sum() > 0
    assert all(value.grad is None for value in (*classifier.parameters(), *learner.parameters()))


def test_logits_depend_on_nobody_else_in_the_batch_which_may_be_empty(backbone, learner, pixels):
    classifier = Classifier.from_learner(backbone, learner)
    alone = torch.cat([classifier(pixels[index : index + 1]) for index in range(4)])
    assert torch.allclose(classifier(pixels), alone, atol=1e-4)
    logits = Classifier.from_learner(backbone, learner)(torch.zeros(0, 3, 16, 16))
    assert logits.shape == (0, 3)
    assert logits.dtype == torch.float32


def test_bf16_is_near_float32_and_still_gives_contiguous_float32_logits(backbone, learner, pixels):
    full = Classifier.from_learner(backbone, learner)(pixels)
    half = Classifier.from_learner(backbone, learner, precision="bf16")(pixels)
    assert half.dtype == full.dtype == torch.float32
    assert half.is_contiguous() and full.is_contiguous()
    assert 0 < float((half - full).abs().max()) < 0.5
    with pytest.raises(UsageError, match="fp32, tf32, bf16"):
        Classifier.from_learner(backbone, learner, precision="fp8")


class Casts(TorchDispatchMode):
    """Counts the casts of frozen weights (of matrices that need no gradient) to bfloat16."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        short = (kwargs or {}).get("dtype") == torch.bfloat16
        self.count += short and "_to_copy" in str(func) and isinstance(args[0], torch.nn.Parameter)
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_to_bf16_once_and_the_bits_are_those_of_autocast(backbone, learner, pixels, monkeypatch):
    model = Classifier.from_learner(backbone, learner, precision="bf16")

    def outcome():
        x = pixels.clone().requires_grad_()
        with Casts() as casts:
            z = model(x)
            (g,) = torch.autograd.grad(z.logsumexp(1).sum(), x)
        return z.detach(), g, casts.count

    model(pixels)
    with monkeypatch.context() as patch:
        patch.setattr(backbone, "_tower", lambda: backbone._image)
        plain = outcome()
    ours = outcome()
    assert torch.equal(plain[0], ours[0]) and torch.equal(plain[1], ours[1])
    assert plain[2] > 4 > ours[2]
    assert all(weight.dtype == torch.float32 for weight in backbone.model.parameters())


def test_matmul_precision_is_restored_even_after_an_error():
    before = torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(KeyError), matmul_precision("tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
        raise KeyError
    assert torch.backends.cuda.matmul.allow_tf32 is before
    with matmul_precision("fp32"):
        assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="since torch 2.9")
@pytest.mark.parametrize("place", ["", "cuda.matmul.", "cudnn.conv.", "mkldnn.matmul."])
def test_what_was_set_by_the_newer_switches_is_overruled_and_restored(place):
    script = f"""
import torch
from apd_bench.prompts.classifier import matmul_precision
backends = torch.backends
places = [backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv]
backends.{place}fp32_precision = "tf32"
before = [place.fp32_precision for place in places]
with matmul_precision("fp32"):
    assert [place.fp32_precision for place in places] == ["ieee"] * 4
with matmul_precision("tf32"):
    assert [place.fp32_precision for place in places] == ["tf32"] * 2 + ["ieee"] * 2
assert [place.fp32_precision for place in places] == before
"""
    subprocess.run([sys.executable, "-c", script], check=True)  # the switches are of the process


def test_clean_logits_are_computed_once_for_each_batch(backbone, learner, pixels):
    classifier = Classifier.from_learner(backbone, learner)
    asked = []

    def predict(batch):
        asked.append(len(batch))
        return classifier(batch)

    first, new = classifier.clean_logits(pixels, predict)
    first_again, old = classifier.clean_logits(pixels.clone(), predict)
    assert (new, old) == (True, False) and len(asked) == 1
    assert torch.equal(first, first_again)
    first_again.zero_()  # what was handed out is nobody else's
    assert torch.equal(first, classifier.clean_logits(pixels, predict)[0])
    other = (pixels * 255 + 1).clamp(max=255) / 255
    assert classifier.clean_logits(other, predict)[1]
    assert len(asked) == 2
    fewer = Classifier.from_learner(backbone, learner)
    assert fewer.clean_logits(pixels, predict)[1]  # another model knows nothing of it
