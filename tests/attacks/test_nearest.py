"""The minimal-norm attacks on a network: distances that are real, and better than a ball attack can give."""

import pytest
import torch

from apd_bench import attacks
from apd_bench.attacks.projections import distance
from apd_bench.core.specs import ThreatModel

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
