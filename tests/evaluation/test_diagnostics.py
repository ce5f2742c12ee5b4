"""The checks fire on models that hide their gradients and stay silent on one that does not."""

import pytest
import torch
from torch.nn.functional import avg_pool2d

from apd_bench.api import evaluate
from apd_bench.attacks.meter import Meter
from apd_bench.core.specs import ThreatModel
from apd_bench.evaluation.diagnostics import gradient_gain
from apd_bench.records.checks import CHECKS, suspect

EPS = "3/255"


@pytest.fixture(scope="module")
def case(small_net):
    net, x, y, _ = small_net(classes=5, n=24, seed=1)
    return net.requires_grad_(False), x, y


def fired(model, case, attack="pgd", threat=EPS):
    result = evaluate(model, case[1:], attack, threat)
    known = {check.reason: name for name, check in CHECKS.items()}
    return {known[reason] for reason in result.suspect}, result


@pytest.mark.parametrize("attack", ["pgd", "cw", "apgd-ce", "worst", "autoattack(iterations=20, queries=60)"])
@pytest.mark.parametrize("threat", [EPS, "L2 0.3"])
def test_silent_on_a_plain_model(attack, threat, case):
    names, result = fired(case[0], case, attack, threat)
    assert not names
    assert result.diagnostics["huge_eps_robust"] == 0 and result.diagnostics["repeat_difference"] == 0


def test_a_gradient_killer_is_found_and_square_gives_it_away(case):
    net = case[0]

    def rounded(x):  # the forward pass is that of the model, the backward pass gives nothing
        return net((x * 255).round() / 255)

    names, result = fired(rounded, case)
    assert {"zero_gradients", "huge_eps_robust"} <= names
    assert result.robust_accuracy > 0.8
    names, _ = fired(rounded, case, "autoattack(iterations=5, queries=400)", "8/255")
    assert "black_box_gain" in names


class Wrong(torch.autograd.Function):
    """The image as it is, with a gradient that stands on its head."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, g):
        return g.flip(-1)


@pytest.mark.parametrize(("around", "attack", "threat", "name"), [
    (lambda net, x: net(Wrong.apply(x)), "pgd", EPS, "broken_promise"),
    (lambda net, x: net(x + 0.02 * torch.randn_like(x)), "pgd", EPS, "repeat_difference"),
    (lambda net, x: net(x) + 0 * (x - x.detach()).abs().sqrt().flatten(1).sum(1, keepdim=True), "pgd", EPS,
     "bad_gradients"),
    (lambda net, x: net(x), "pgd(steps=1, step=0.01, start='none')", "4/255", "attack_above_fgsm"),
    (lambda net, x: net(x), "pgd(steps=12, step=0.01, start='none', schedule='constant')", "4/255", "late_gain"),
], ids=["wrong gradient", "random", "not finite", "weak attack", "unfinished attack"])  # fmt: skip
def test_what_makes_a_number_doubtful_is_found(around, attack, threat, name, case):
    names, _ = fired(lambda x: around(case[0], x), case, attack, threat)
    assert name in names


@pytest.fixture(scope="module")
def planted():
    """A smooth classifier, the same behind a decoy, and images: the decoy is a chequered wave of 1/255 in brightness.

    It rules the gradient, which points along the chequers that the classifier averages away.
    """
    generator = torch.Generator().manual_seed(0)
    weights, x = torch.randn(27, 6, generator=generator), torch.rand(40, 3, 12, 12, generator=generator)
    chequers = (torch.arange(12)[:, None] + torch.arange(12)) % 2 * 2.0 - 1

    def smooth(x):
        return 20 * (avg_pool2d(x, 4) - 0.5).flatten(1) @ weights

    def decoy(x):
        return smooth(x + torch.sin(1e5 * (chequers * x).flatten(1).mean(1))[:, None, None, None] / 255)

    return smooth, decoy, (x, smooth(x).argmax(1))


@pytest.mark.parametrize("threat", ["8/255", "L2 0.4"])
@pytest.mark.parametrize("attack", ["pgd", "cw", "apgd-t", "worst", "fgsm", "noise"])
def test_a_decoy_of_high_frequency_is_found_whatever_the_attack(attack, threat, planted):
    smooth, decoy, data = planted
    honest, misled = (evaluate(model, data, attack, threat) for model in (smooth, decoy))
    assert not honest.suspect
    assert {CHECKS["broken_promise"].reason, CHECKS["random_above_step"].reason} <= set(misled.suspect)
    assert attack == "noise" or misled.robust_accuracy > honest.robust_accuracy + 0.15


def test_square_goes_through_a_decoy_that_leads_the_gradient_attacks_astray(planted):
    _, decoy, data = planted
    gradients, square = (evaluate(decoy, data, attack) for attack in ("apgd-t", "autoattack.square(queries=500)"))
    assert gradients.robust_accuracy > square.robust_accuracy + 0.3


def test_the_gain_of_a_step_costs_five_passes_and_depends_on_no_batch(case):
    net, x, y = case
    threat, ids = ThreatModel(eps=3 / 255), [f"s{place}" for place in range(len(x))]
    whole, parts = Meter(net), Meter(net, batch_size=5)
    first, second = (gradient_gain(meter, x, y, threat, ids, seed=0) for meter in (whole, parts))
    assert first == pytest.approx(second, abs=1e-5)
    assert (whole.forwards, whole.backwards) == (5 * len(x), len(x)) == (parts.forwards, parts.backwards)


def test_on_a_linear_margin_a_step_gains_what_its_gradient_promises():
    weight = torch.randn(2, 27, generator=torch.Generator().manual_seed(0))
    x, ids = torch.full((4, 3, 3, 3), 0.5), ["a", "b", "c", "d"]
    model = Meter(lambda x: x.flatten(1) @ weight.T)
    y = model.predict(x).argmax(1)
    for threat in (ThreatModel(eps=8 / 255), ThreatModel(eps=0.5, norm="L2")):
        facts = gradient_gain(model, x, y, threat, ids, seed=0)
        assert facts == {"broken_promise": pytest.approx(0, abs=1e-4), "random_above_step": 0}


def test_saturated_logits_are_found_and_broken_all_the_same(case):
    net = case[0]
    names, result = fired(lambda x: 1e4 * net(x), case)
    assert "saturated" in names
    assert result.robust_accuracy <= evaluate(net, case[1:], "pgd", EPS).robust_accuracy < 1
    names, _ = fired(lambda x: 1e4 * net(x), case, "pgd.apt")
    assert {"saturated", "saturated_loss", "plain_loss_gap"} <= names
    assert result.diagnostics["plain_ce_zero_gradients"] > 0.5


def test_a_librarys_cross_entropy_is_known_to_saturate(case):
    pytest.importorskip("torchattacks")
    names, _ = fired(lambda x: 30 * case[0](x), case, "torchattacks:PGD(steps=5)")
    assert names & {"saturated_loss", "plain_loss_gap"}
    names, _ = fired(lambda x: 30 * case[0](x), case, "torchattacks:Square(n_queries=5)")
    assert not names & {"saturated_loss", "plain_loss_gap"}


def test_the_gap_of_the_losses_is_measured_for_every_attack_and_fires_for_those_on_the_plain_one(case):
    for scale, wide in ((1.0, False), (1e4, True)):
        gaps = {}
        for attack in ("pgd.apt(steps=2)", "pgd(steps=2)"):
            names, result = fired(lambda x, scale=scale: scale * case[0](x), case, attack)
            assert ("plain_loss_gap" in names) == (wide and attack.startswith("pgd.apt"))
            gaps[attack] = 1 - result.diagnostics["plain_ce_agreement"]
        assert len(set(gaps.values())) == 1 and (gaps["pgd(steps=2)"] > 0.1) == wide


def test_every_limit_has_a_reason_that_fits_a_table():
    reasons = [check.reason for check in CHECKS.values()]
    assert len(set(reasons)) == len(reasons)
    assert all(20 < len(reason) < 90 for reason in reasons)
    assert suspect({}) == ()
    assert suspect({"flips": 0.02, "late_gain": 0.05}) == (CHECKS["flips"].reason,)
