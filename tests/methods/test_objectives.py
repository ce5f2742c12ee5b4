"""AdvPT's bank, AdvTP's strategies, and the inner attack."""

import pytest
import torch
import torch.nn.functional as F

from apd_bench.core.errors import UsageError
from apd_bench.methods.adversary import InnerAdversary, ascend, project, start
from apd_bench.methods.advtp import PromptAttack
from apd_bench.methods.recipes import load_recipe
from apd_bench.training.fit import prepare
from apd_bench.training.toy import toy_fit

QUICK = {"training": {"epochs": 1, "batch_size": 8, "warmup_epochs": 0}}
PGD = {"loss": "ce", "steps": 3, "step": 0.5, "start": "uniform"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_bank_of_advpt_holds_attacked_embeddings_and_training_encodes_nothing(backbone, data):
    plan = toy_fit(load_recipe("advpt", QUICK), backbone, data)
    run = prepare(plan, backbone, data)
    with torch.no_grad():
        clean = F.normalize(backbone.encode_image(run.images(torch.arange(16))), dim=-1)
    bank = run.objective._bank
    assert bank.shape == clean.shape
    torch.testing.assert_close(bank.norm(dim=-1), torch.ones(16))
    assert not torch.allclose(bank, clean, atol=1e-3)
    assert run.passes.text_forwards == 0
    again = prepare(plan, backbone, data).objective._bank
    assert torch.equal(bank, again)
    run = prepare(toy_fit(load_recipe("advpt", QUICK), backbone, data), backbone, data)
    before = run.passes.forwards
    run.terms(run.batch(torch.arange(8)), seeded())
    assert run.passes.forwards == before


class Recorder:
    """A bound model that remembers the last images it was asked about."""

    def __init__(self, model):
        self.model, self.text_features, self.images = model, model.text_features, None

    def __call__(self, pixels):
        self.images = pixels.detach()
        return self.model(pixels)


def attacked_images(strategy, backbone, data):
    """The images on which the update is made; checks that the prompt is what it was."""
    options = {"strategy": strategy, "prompt_step": 5.0 if strategy == "perturbed" else 0.0}
    run = prepare(toy_fit(load_recipe("apt", QUICK, {"objective": options}), backbone, data), backbone, data)
    before = run.model.learner.state()["context"]
    student = Recorder(run.model.bind().detached())
    adversary = InnerAdversary(student.model, run.eps, run.recipe.inner_attack, seeded())
    run.objective(student, run.batch(torch.arange(8)), adversary, None)
    assert torch.equal(before, run.model.learner.state()["context"])
    assert 0 < (student.images - run.images(torch.arange(8))).abs().max() <= run.eps + 1e-6
    return student.images


@pytest.mark.parametrize("strategy", ["constant", "perturbed"])
def test_the_strategies_of_apt_make_other_attacks_and_restore_the_prompt(strategy, backbone, data):
    plain, other = (attacked_images(name, backbone, data) for name in ("onfly", strategy))
    assert not torch.equal(plain, other)


@pytest.mark.parametrize("text", ["", "a photo of a {}"])
def test_the_constant_strategy_attacks_a_hand_made_prompt(text, backbone, data):
    options = {"strategy": "constant", "text": text}
    run = prepare(toy_fit(load_recipe("apt", QUICK, {"objective": options}), backbone, data), backbone, data)
    used = []

    def spy(pixels, labels, *, target=None, loss=None, against=None):
        used.append(against)
        return pixels

    run.terms(run.batch(torch.arange(4)), seeded(), spy)
    expected = F.normalize(backbone.encode_text(backbone.tokenize([
        (text or data.template).replace("{}", name.replace("_", " ")) for name in data.classes
    ])), dim=-1)  # fmt: skip
    torch.testing.assert_close(used[0].text_features, expected)


def test_the_inner_attack_stays_in_the_ball_and_in_the_image_range(backbone, data):
    run = prepare(toy_fit(load_recipe("advvlp", QUICK), backbone, data), backbone, data)
    pixels = run.images(torch.arange(8))
    model = run.model.bind().detached()
    moved = InnerAdversary(model, 8 / 255, PGD, seeded())(pixels, run.images.labels[:8])
    assert (moved - pixels).abs().max() <= 8 / 255 + 1e-7
    assert moved.min() >= 0 and moved.max() <= 1
    assert not moved.requires_grad


def test_the_inner_attack_raises_its_loss(backbone, data):
    run = prepare(toy_fit(load_recipe("advvlp", QUICK), backbone, data), backbone, data)
    pixels, labels = run.images(torch.arange(8)), run.images.labels[:8]
    model = run.model.bind().detached()
    moved = InnerAdversary(model, 8 / 255, PGD | {"steps": 10}, seeded())(pixels, labels)
    with torch.no_grad():
        before, after = (F.cross_entropy(model(images).logits, labels) for images in (pixels, moved))
    assert after > before


def test_one_step_of_a_linear_loss_is_the_sign_of_its_gradient():
    pixels = torch.full((2, 3, 2, 2), 0.5)
    weight = torch.randn(3, 2, 2, generator=seeded())
    options = PGD | {"steps": 1, "step": 1.0, "start": "none"}
    moved = ascend(lambda x: x, pixels, lambda x: (x * weight).sum(), eps=0.1, options=options, generator=seeded())
    torch.testing.assert_close(moved, pixels + 0.1 * weight.sign())


@pytest.mark.parametrize(("kind", "least", "most"), [("uniform", -1, 1), ("uniform-positive", 0, 1), ("none", 0, 0)])
def test_starts_lie_in_the_ball_and_in_the_image_range(kind, least, most):
    pixels = torch.rand(4, 3, 8, 8, generator=seeded())
    begun = start(pixels, 0.03, kind, seeded())
    inside = (pixels > 0.03) & (pixels < 0.97)
    shift = ((begun - pixels) / 0.03)[inside]
    assert least - 1e-5 <= shift.min() <= least + 0.1
    assert most - 0.1 <= shift.max() <= most + 1e-5
    torch.testing.assert_close(project(begun, pixels, 0.03), begun)


def test_the_gaussian_start_is_that_of_trades_unclipped_until_the_first_step(backbone, data):
    pixels = torch.rand(4, 3, 8, 8, generator=seeded()).round()
    begun = start(pixels, 1e-4, "gaussian", seeded())
    assert torch.equal(begun, pixels + 0.001 * torch.randn(pixels.shape, generator=seeded()))
    assert begun.min() < 0 < (begun - pixels).abs().max() - 1e-4
    options = PGD | {"steps": 1, "start": "gaussian"}
    moved = ascend(lambda x: x, pixels, lambda x: x.sum(), eps=1e-4, options=options, generator=seeded())
    torch.testing.assert_close(project(moved, pixels, 1e-4), moved)


def test_budget_0_returns_the_images_and_what_misses_an_option_is_refused():
    pixels = torch.rand(2, 3, 4, 4)
    assert InnerAdversary(None, 0.0, PGD, seeded())(pixels, torch.zeros(2)) is pixels
    with pytest.raises(UsageError, match="cannot attack with"):
        InnerAdversary(None, 0.1, PGD | {"loss": "kl"}, seeded())(torch.rand(2, 3, 4, 4), torch.zeros(2))
    with pytest.raises(UsageError, match="prompt_step"):
        PromptAttack(strategy="perturbed")
