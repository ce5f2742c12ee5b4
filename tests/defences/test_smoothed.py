"""Randomized smoothing: votes counted by hand, certificates against the closed form and against attacks."""

import math

import pytest
import torch
from scipy.stats import binomtest, norm

from apd_bench import attacks
from apd_bench.api import evaluate
from apd_bench.core.errors import UsageError
from apd_bench.core.specs import ThreatModel
from apd_bench.defences.parse import make_defence
from apd_bench.defences.smoothed import ABSTAIN

ADAPTIVE = "adaptive(iterations=5, near=1, targets=1, draws=2, queries=10, order=('straight', 'replay', 'square'))"


@pytest.fixture(scope="module")
def line():
    """A linear model of two classes, images, their predictions and their distances to the boundary."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(48, generator=generator)
    x = torch.rand(12, 3, 4, 4, generator=generator)
    b = (x.flatten(1) @ w).median() + 0.05

    def model(x):
        score = x.flatten(1) @ w.to(x) - b
        return torch.stack([-score, score], dim=1)

    return model, x, model(x).argmax(1), (x.flatten(1) @ w - b).abs() / w.norm()


def test_a_prediction_is_the_majority_and_an_abstention_where_the_test_does_not_reject(line):
    model, x, *_ = line
    defence = make_defence("smoothed(sigma=0.3, samples=70, alpha=0.01)", model)
    z = defence(x, ("one",))
    noise = 0.3 * torch.cat([part / 0.3 for part in defence._parts(x, defence.drawn(("one",), x), 70)])
    seen = set()
    for image, logits in zip(x, z, strict=True):
        votes = model(image + noise).argmax(1).bincount(minlength=2)
        decided = binomtest(int(votes.max()), 70, 0.5).pvalue <= 0.01
        assert int(logits.argmax()) == (int(votes.argmax()) if decided else 2)
        torch.testing.assert_close(logits[:2], ((votes + 0.5) / 70).log())
        seen.add(decided)
    assert seen == {True, False}


def test_an_abstention_is_wrong_whatever_the_label(line):
    model, x, y, _ = line
    z = make_defence("smoothed(sigma=50.0)", model)(x, (0,))
    assert (z.argmax(1) == 2).sum() >= 10 and (z.argmax(1) != y).sum() >= 10


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_the_radius_is_the_distance_to_a_linear_boundary_from_below(sigma, line):
    model, x, y, far = line
    defence = make_defence(f"smoothed(sigma={sigma}, selection=50, estimation=20000)", model)
    classes, radii = defence.certificate(x, (3,))
    certified = classes != ABSTAIN
    most = sigma * norm.ppf(0.001 ** (1 / 20000))  # every vote for one class
    assert certified.sum() >= 8 and (classes[certified] == y[certified]).all() and (radii[~certified] == 0).all()
    assert (radii <= far + 1e-6).all()
    assert (radii >= far.clamp(max=most) - 0.15 * sigma)[certified & (far < 1.5 * sigma)].all()
    assert (far[~certified] < 0.1 * sigma).all()


def test_with_all_votes_the_bound_is_alpha_to_the_power_of_one_over_n(line):
    _, x, _, _ = line
    constant = make_defence(
        "smoothed(sigma=0.5, estimation=1000)", lambda x: x.new_tensor([[1.0, 0.0, 0.0]]).repeat(len(x), 1)
    )
    classes, radii = constant.certificate(x, (0,))
    assert (classes == 0).all()
    assert radii.tolist() == pytest.approx([0.5 * norm.ppf(0.001 ** (1 / 1000))] * len(x))
    assert constant.facts(x).keys() == {"certified_class", "certified_radius"}


def test_no_attack_comes_closer_than_the_certificate(line):
    model, x, y, _ = line
    defence = make_defence("smoothed(sigma=0.2, samples=200, estimation=2000)", model)
    classes, radii = defence.certificate(x, (5,))
    sure = (classes == y) & (radii > 0.05)
    assert sure.sum() >= 6
    for row in sure.nonzero().flatten().tolist()[:4]:
        one = ([f"s{row}"], x[row : row + 1], y[row : row + 1])
        inside = ThreatModel(eps=float(radii[row]) * 0.999, norm="L2")
        for attack in ("pgd(steps=10)", "apgd-t(steps=10)", ADAPTIVE):
            broken = attacks.run(attack, defence, one[1], one[2], inside, one[0]).adversarials
            sample = make_defence("smoothed(sigma=0.2, samples=20000)", model)(broken, ("judge",))
            assert sample[0, : len(sample[0]) - 1].argmax() == y[row]


def test_a_record_holds_the_certificates_and_what_is_certified_is_never_taken_for_another_class(line):
    model, x, y, _ = line
    defence = make_defence("smoothed(sigma=0.2, samples=100, estimation=1000)", model)
    threat = ThreatModel(eps=0.1, norm="L2", knowledge="undefended")
    outcomes = evaluate(defence, (x, y), "pgd(steps=10)", threat).outcomes
    certified = (outcomes.extra["certified_class"] == outcomes.label) & (outcomes.extra["certified_radius"] > 0.1)
    said = outcomes.adversarial_prediction
    assert certified.sum() >= 4 and outcomes.broken.any()
    assert ((said == outcomes.label) | (said == 2))[certified].all()  # an abstention is broken, and no other class


def test_the_gradient_is_that_of_the_log_mean_softmax(line):
    model, x, y, _ = line
    defence = make_defence("smoothed(sigma=0.3, samples=100)", lambda x: 3 * model(x))
    x = x[:3].double()
    noise = torch.cat(list(defence._parts(x, defence.drawn((1,), x), 100)))

    def soft(x):
        return (3 * model((x[:, None] + noise).flatten(0, 1))).view(3, 100, 2).softmax(2).mean(1).log()

    at = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(defence(at, (1,))[:, :2].gather(1, y[:3, None]).sum(), at)
    step = torch.zeros_like(x)
    step[:, 1, 2, 3] = 1e-5
    numeric = (soft(x + step) - soft(x - step)).gather(1, y[:3, None]).squeeze(1) / 2e-5
    torch.testing.assert_close(g[:, 1, 2, 3], numeric, rtol=1e-5, atol=1e-9)
    assert math.isfinite(float(g.abs().max())) and float(g.abs().amax()) > 0


def test_noise_is_drawn_in_parts_of_bounded_size_that_do_not_change_the_votes(line):
    model, x, *_ = line
    sizes = set()

    def watched(x):
        sizes.add(len(x))
        return model(x)

    defence = make_defence("smoothed(samples=150)", watched)
    defence(x[:2], (0,))
    assert max(sizes) == 2 * defence.width == 128


@pytest.mark.parametrize("options", ["sigma=0.0", "alpha=1.0", "samples=0", "selection=0", "estimation=-1"])
def test_options_without_sense_are_refused(options, line):
    with pytest.raises(UsageError):
        make_defence(f"smoothed({options})", line[0])
