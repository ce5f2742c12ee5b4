"""The minimal-norm attacks on a network: distances that are real, and better than a ball attack can give."""

import pytest
import torch

from apd_bench.attacks.carlini_wagner import carlini_wagner_l2
from apd_bench.attacks.ddn import ddn
from apd_bench.attacks.pgd import pgd
from apd_bench.attacks.projections import distance
from apd_bench.specs import ThreatModel

ATTACKS = {"ddn": lambda *a, **k: ddn(*a, steps=40, **k), "cw-l2": lambda *a, **k: carlini_wagner_l2(*a, steps=40, **k)}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_distance_is_that_of_an_adversarial_point(name, small_net):
    net, x, y, ids = small_net(classes=5, n=8)
    result = ATTACKS[name](net, x, y, ThreatModel(eps=0.1, norm="L2"), sample_ids=ids)
    assert result.broken.all()
    assert torch.allclose(result.columns["distance"], distance(result.adversarials, x, "L2"))
    assert (net(result.adversarials).argmax(1) != y).all()
    for place in range(0, 8, 3):  # no ball attack succeeds within nine tenths of the distance found
        one = slice(place, place + 1)
        threat = ThreatModel(eps=0.9 * float(result.columns["distance"][place]), norm="L2")
        assert not pgd(net, x[one], y[one], threat, sample_ids=ids[one], loss="margin").broken.any()


@pytest.mark.parametrize("name", ATTACKS)
def test_what_cannot_be_broken_is_at_an_infinite_distance(name):
    x = torch.rand(3, 3, 4, 4)

    def stubborn(pixels):
        return torch.stack([pixels.flatten(1).sum(1) * 0 + 5, pixels.flatten(1).sum(1) * 0], 1)

    result = ATTACKS[name](stubborn, x, torch.zeros(3, dtype=torch.long), ThreatModel(eps=0.1), sample_ids="abc")
    assert not result.broken.any() and result.columns["distance"].isinf().all()
    assert torch.equal(result.adversarials, x)


@pytest.mark.parametrize("name", ATTACKS)
def test_pixels_at_zero_and_one_can_move(name, small_net):
    net, x, _, ids = small_net(classes=4, n=6)
    x = (x > 0.5).float()
    y = net(x).argmax(1)
    result = ATTACKS[name](net, x, y, ThreatModel(eps=0.1), sample_ids=ids)
    assert result.broken.all() and result.columns["distance"].max() < 3
