"""Linear models: robust accuracy and minimal distances in closed form; on a network, distances that are real."""

import pytest
import torch

from apd_bench import attacks
from apd_bench.attacks.projections import distance
from apd_bench.core.specs import ThreatModel

EXACT = ["cw", "pgd-t", "apgd-t", "worst", "worst.fast"]
VARIANTS = {
    "plain": {},
    "small logits": {"scale": 1e-4},
    "large logits": {"scale": 1e4},
    "shifted": {"shift": 50.0},
    "shifted and large": {"scale": 100.0, "shift": -3000.0},
}


def attack(oracle, text, eps, norm):
    return attacks.run(text, oracle.model, oracle.x, oracle.y, ThreatModel(eps=eps, norm=norm), oracle.ids)


def between(oracle, norm):
    """A budget that breaks about half of the samples and lies well away from every sample's own threshold."""
    low = torch.zeros(len(oracle.x)).double()
    high = torch.full_like(low, 1.0 if norm == "Linf" else 30.0)
    for _ in range(30):
        middle = (low + high) / 2
        broken = oracle.excess(middle, norm) > 0
        low, high = torch.where(broken, low, middle), torch.where(broken, middle, high)
    edges = high.sort().values
    ratio = (edges[1:] / edges[:-1]).log()
    place = len(edges) // 4 + int(ratio[len(edges) // 4 : -len(edges) // 4].argmax())
    return float((edges[place] * edges[place + 1]).sqrt())


@pytest.mark.parametrize("saturated", [False, True], ids=["free", "box binds"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("classes", [2, 3, 5, 10])
def test_robust_accuracy_is_the_closed_form(classes, norm, saturated, oracle):
    case = oracle(classes, n=12, size=4, saturated=saturated, seed=classes)
    eps = between(case, norm)
    broken = case.excess(eps, norm) > 0
    assert 2 <= int(broken.sum()) <= 10
    for name in [*EXACT, *(["pgd", "apgd-ce"] if classes == 2 else [])]:
        assert torch.equal(attack(case, name, eps, norm).broken, broken), name
    for name in ("noise", "fgsm", "pgd", "pgd.apt", "apgd-ce"):
        assert not (attack(case, name, eps, norm).broken & ~broken).any(), name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("classes", [2, 4])
def test_scale_and_shift_of_the_logits_change_nothing(classes, variant, oracle):
    case = oracle(classes, n=12, size=4, seed=5, **VARIANTS[variant])
    eps = between(case, "Linf")
    broken = case.excess(eps, "Linf") > 0
    for name in [*EXACT, *(["pgd"] if classes == 2 else [])]:
        assert torch.equal(attack(case, name, eps, "Linf").broken, broken), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_half_precision_logits(dtype, scale, oracle):
    """The verdict is that of the rounded logits: exact where the margin left at the optimum is above the rounding."""
    case = oracle(3, n=16, size=4, seed=3, dtype=dtype, scale=scale)
    eps = between(case, "Linf")
    excess = case.excess(eps, "Linf")
    clear = excess.abs() > 4 * torch.finfo(dtype).eps * case.model(case.x).float().abs().amax(1) / scale
    assert int(clear.sum()) >= 10
    for name in ("pgd", "cw", "worst", "autoattack(iterations=20, queries=20)"):
        result = attack(case, name, eps, "Linf")
        assert torch.equal(result.broken[clear], excess[clear] > 0), name


def test_plain_cross_entropy_fails_where_the_stable_form_does_not(oracle):
    case = oracle(2, n=12, size=4, seed=2, scale=1e4)
    eps = between(case, "Linf")
    broken = case.excess(eps, "Linf") > 0
    plain = attack(case, "pgd(loss='ce', start='none')", eps, "Linf")
    assert int(plain.broken.sum()) < int(broken.sum())
    assert torch.equal(attack(case, "pgd(start='none')", eps, "Linf").broken, broken)


@pytest.mark.parametrize("saturated", [False, True], ids=["free", "box binds"])
@pytest.mark.parametrize("variant", ["plain", "small logits", "large logits"])
@pytest.mark.parametrize("classes", [2, 5])
def test_minimal_norm_attacks_come_within_five_percent(classes, variant, saturated, oracle):
    case = oracle(classes, n=8, size=4, saturated=saturated, seed=classes, **VARIANTS[variant])
    exact = case.distance()
    for name in ("ddn(steps=60)", "cw-l2(steps=50, searches=3)"):
        ratio = attack(case, name, 0.1, "L2").columns["distance"] / exact
        assert ratio.min() > 0.999 and ratio.max() < 1.05, (name, ratio)


BOTH = pytest.mark.parametrize("attack", ["ddn(steps=40)", "cw-l2(steps=40)"])


@BOTH
def test_the_distance_is_that_of_an_adversarial_point(attack, small_net):
    net, x, y, ids = small_net(classes=5, n=8)
    result = attacks.run(attack, net, x, y, ThreatModel(eps=0.1, norm="L2"), ids)
    assert result.broken.all()
    assert torch.allclose(result.columns["distance"], distance(result.adversarials, x, "L2"))
    assert (net(result.adversarials).argmax(1) != y).all()
    for place in range(0, 8, 3):  # no ball attack succeeds within nine tenths of the distance found
        one = slice(place, place + 1)
        threat = ThreatModel(eps=0.9 * float(result.columns["distance"][place]), norm="L2")
        assert not attacks.run("cw", net, x[one], y[one], threat, ids[one]).broken.any()


@BOTH
def test_what_cannot_be_broken_is_at_an_infinite_distance(attack):
    x = torch.rand(3, 3, 4, 4)

    def stubborn(pixels):
        return torch.stack([pixels.flatten(1).sum(1) * 0 + 5, pixels.flatten(1).sum(1) * 0], 1)

    result = attacks.run(attack, stubborn, x, torch.zeros(3, dtype=torch.long), ThreatModel(eps=0.1), "abc")
    assert not result.broken.any() and result.columns["distance"].isinf().all()
    assert torch.equal(result.adversarials, x)


@BOTH
def test_pixels_at_zero_and_one_can_move(attack, small_net):
    net, x, _, ids = small_net(classes=4, n=6)
    x = (x > 0.5).float()
    y = net(x).argmax(1)
    result = attacks.run(attack, net, x, y, ThreatModel(eps=0.1), ids)
    assert result.broken.all() and result.columns["distance"].max() < 3
