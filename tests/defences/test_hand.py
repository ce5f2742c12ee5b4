"""Each defence on a case that is computed by hand, and its gradients against differences in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from apd_bench.backbones.slots import VisualPrompts
from apd_bench.defences import prompt_tuning
from apd_bench.defences.anti_adversary import AntiAdversary
from apd_bench.defences.parse import make_defence
from apd_bench.defences.prompt_tuning import adamw, entropy
from apd_bench.defences.views import look
from tests.defences.conftest import predict


def test_anti_adversary_walks_along_the_signs_of_a_linear_model():
    W = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 0.0]])
    model = lambda x: x.flatten(1) @ W.T  # noqa: E731
    x = torch.tensor([0.9, 0.1, 0.5]).view(1, 3, 1, 1)
    moved = x + 2 * 0.15 * torch.tensor([1.0, -1.0, 1.0]).view(1, 3, 1, 1)  # w_0 - w_1 = (1, -3, 0.5)
    torch.testing.assert_close(predict(AntiAdversary(model, step=0.15, steps=2), x), model(moved))


def test_ttc_moves_against_the_features_and_weighs_its_steps(tiny):
    classifier, x = tiny[0], tiny[1][:3]
    defence = make_defence("ttc(threshold=9.0, radius=0.02, step=0.01, steps=2, weighting=1.0)", classifier)
    u = defence.drawn((1,), x)
    d = [(x + u).clamp(0, 1) - x]
    f0 = classifier.features(x)
    for _ in range(2):
        at = d[-1].clone().requires_grad_()
        (classifier.features(x + at) - f0).pow(2).sum().backward()
        step = (d[-1] + 0.01 * at.grad.sign()).clamp(-0.02, 0.02)
        d.append((x + step).clamp(0, 1) - x)
    v = [0.09003, 0.24473, 0.66524]  # softmax of 0, 1, 2
    expected = classifier(x + sum(weight * step for weight, step in zip(v, d, strict=True)))
    torch.testing.assert_close(predict(defence, x), expected, atol=2e-3, rtol=0)


def test_ttc_with_its_gate_off_predicts_the_noisy_image_and_the_hinge_says_how_far_that_is(tiny):
    classifier, x = tiny[0], tiny[1][:4]
    for threshold, off in ((1e-6, True), (9.0, False)):
        defence = make_defence(f"ttc(threshold={threshold})", classifier)
        noisy = classifier((x + defence.drawn((1,), x)).clamp(0, 1))
        assert torch.allclose(predict(defence, x), noisy, atol=1e-3) is off
    drift = (classifier.features((x + defence.drawn((1,), x)).clamp(0, 1)) - classifier.features(x)).norm(dim=1)
    share = drift / classifier.features(x).norm(dim=1)
    torch.testing.assert_close(defence.hinge(x, (1,)), 9.02 - share, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [2, 10])
def test_clipure_returns_to_the_feature_after_an_even_number_of_steps_and_not_after_an_odd_one(steps, tiny):
    classifier, x = tiny[0], tiny[1][:8]
    bare = classifier(x)
    even, odd = (predict(make_defence(f"clipure_cos(steps={k})", classifier), x) for k in (steps, steps + 1))
    torch.testing.assert_close(even, bare, atol=1e-3, rtol=0)
    assert float((odd - bare).abs().max()) > 1


def test_clipure_turns_by_88_degrees_in_the_plane_of_feature_and_text(tiny):
    defence = make_defence("clipure_cos(steps=1)", tiny[0])
    u, t = normalize(tiny[0].features(tiny[1][:5]), dim=1), defence.get_buffer("t")
    before = torch.rad2deg(torch.acos((u * t).sum(1)))
    m = normalize(t - (u * t).sum(1, keepdim=True) * u, dim=1)
    after = torch.rad2deg(torch.acos((normalize(u + 30 * m, dim=1) * t).sum(1)))
    torch.testing.assert_close(after, (before - 88.0908).abs(), atol=0.05, rtol=0)


def test_mean_views_is_the_mean_over_the_image_and_its_views(tiny):
    classifier, x = tiny[0], tiny[1][:3]
    defence = make_defence("mean_views(views=4)", classifier)
    views = look(x, defence.drawn((1,), x))
    expected = (classifier(x) + sum(classifier(views[:, place]) for place in range(3))) / 4
    torch.testing.assert_close(predict(defence, x), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(predict(make_defence("mean_views(views=1)", classifier), x), classifier(x))


def test_the_first_adamw_step_is_that_of_torch():
    p = nn.Parameter(torch.tensor([0.5, -2.0, 0.0]))
    g = torch.tensor([1e-9, 3.0, -0.2])
    optimiser = torch.optim.AdamW([p], lr=5e-3)
    expected = adamw(p.detach().clone(), g, 5e-3)
    p.grad = g.clone()
    optimiser.step()
    torch.testing.assert_close(p.detach(), expected)


@pytest.mark.parametrize("name", ["tpt", "r_tpt"])
def test_prompt_tuning_is_one_step_of_torch_on_the_entropy_of_the_surest_views(name, tiny):
    classifier, x = tiny[0], tiny[1][:1]
    defence = make_defence(f"{name}(views=8, share=0.3, rate=0.05)", classifier)
    z = normalize(classifier.features(torch.cat([x, look(x, defence.drawn((1,), x))[0]])), dim=1)
    P = nn.Parameter(defence.context.clone())
    scale = classifier.backbone.logit_scale
    logits = scale * z @ defence.encode(P[None])[0].T
    sure = logits[entropy(logits).argsort()[:2]]
    (entropy(sure).mean() if name == "r_tpt" else -(p := sure.softmax(1).mean(0)).dot(p.log())).backward()
    torch.optim.AdamW([P], lr=0.05).step()
    w = defence.encode(P[None])[0]
    if name == "tpt":
        expected = scale * z[:1] @ w.T
    else:
        alike = z @ z.T - 9 * torch.eye(8)
        weights = (alike.topk(7, dim=1).values.mean(1) / 0.01).softmax(0)
        expected = (weights[:, None] * (scale * z @ w.T)).sum(0, keepdim=True)
    torch.testing.assert_close(predict(defence, x), expected, atol=5e-3, rtol=0)


def in_double(classifier):
    """The classifier in float64 all through."""
    made = copy.deepcopy(classifier).double()
    if classifier.learner is not None:
        made._learner = (copy.deepcopy(classifier.learner),)
        made._learner[0]._held = (made.backbone,)
    made.features = lambda x, tokens=None, outputs=None: made.backbone.encode_image(
        x, VisualPrompts(tokens=made.visual_tokens if tokens is None else tokens, frame=made.frame), outputs
    )
    return made


@pytest.fixture(scope="module")
def double(tiny):
    """The classifier in float64, and two images."""
    return in_double(tiny[0]), 0.1 + 0.8 * tiny[1][:2].double(), tiny[2][:2]  # off the box's edge, where a clip binds


@pytest.fixture(scope="module")
def double_prompted(tiny, prompted):
    """The same of the classifier with visual prompts."""
    return in_double(prompted), 0.1 + 0.8 * tiny[1][:2].double(), tiny[2][:2]


@pytest.mark.parametrize(
    "text", ["mean_views(views=3)", "tpt(views=3)", "r_tpt(views=3, temperature=0.1)", "ttc", "anti_adversary",
             "clipure_cos(steps=2)", "clipure_cos(steps=3)", "tapt(views=3, rate=0.05)"]
)  # fmt: skip
def test_unrolled_gradients_are_the_differences_of_the_prediction(text, double, double_prompted, monkeypatch):
    monkeypatch.setattr(prompt_tuning, "_ADAMW_EPS", 1e-2)  # with 1e-8 a step is far from straight at small gradients
    classifier, x, y = double_prompted if text.startswith("tapt") else double
    if text.startswith(("mean", "r_tpt", "tpt")):
        text = text.replace(")", ", augment='crop_flip')")  # AugMix has maps without a derivative
    defence = make_defence(text, classifier, lambda made: made.learn([x.flip(3)]))
    defence.unrolled = True
    if hasattr(defence, "context"):
        defence.context = defence.context.double()

    def value(x):
        return defence(x, (1,)).gather(1, y[:, None]).sum()

    at = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(value(at), at)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        v = normalize(torch.randn(x.shape, generator=generator, dtype=torch.float64).flatten(), dim=0).view_as(x)
        h = 1e-7
        with torch.no_grad():
            slope = (value(x + h * v) - value(x - h * v)) / (2 * h)
        assert float((g * v).sum()) == pytest.approx(float(slope), rel=2e-3, abs=1e-5)
    defence.unrolled = False
    (replayed,) = torch.autograd.grad(defence(at, (1,)).gather(1, y[:, None]).sum(), at)
    if "unrolled" not in defence.gradients:
        torch.testing.assert_close(replayed, g)
