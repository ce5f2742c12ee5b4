"""The feasible set: what a point may be, and where the noise comes from."""

import pytest
import torch

from apd_bench.attacks.projections import Region, _draw_all, distance
from apd_bench.core.specs import ThreatModel

IMAGES = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float() / 255


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 8 / 255), ("Linf", 0.3), ("L2", 0.5), ("L2", 3.0)])
def test_a_projected_point_keeps_budget_and_range_in_float32(norm, eps):
    region = Region.around(IMAGES, ThreatModel(eps=eps, norm=norm))
    for x in (IMAGES + torch.randn_like(IMAGES), region.random([str(i) for i in range(5)], 0)):
        x = region.project(x)
        assert distance(x, IMAGES, norm).max() <= eps + 1e-6
        assert x.min() >= 0 and x.max() <= 1


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_noise_belongs_to_the_sample_and_not_to_the_batch(norm):
    region = Region.around(IMAGES, ThreatModel(eps=0.1, norm=norm))
    ids = list("abcde")
    together = region.random(ids, 7, "pgd", 0)
    order = torch.tensor([3, 1])
    apart = region.take(order).random(["d", "b"], 7, "pgd", 0)
    assert torch.equal(together[order], apart)
    assert not torch.equal(together, region.random(ids, 8, "pgd", 0))
    assert not torch.equal(together, region.random(ids, 7, "pgd", 1))


def test_the_step_is_signed_or_normalised_and_inside_points_stay():
    g = torch.randn(5, 3, 8, 8)
    middle = torch.full_like(IMAGES, 0.5)
    linf = Region.around(middle, ThreatModel(eps=0.1))
    assert torch.allclose(linf.step(middle, g, 0.05), middle + 0.05 * g.sign())
    l2 = Region.around(middle, ThreatModel(eps=1.0, norm="L2"))
    assert torch.allclose(distance(l2.step(middle, g, 0.25), middle, "L2").float(), torch.full((5,), 0.25), atol=1e-5)
    assert torch.equal(l2.step(middle, torch.zeros_like(g), 0.25), middle)
    region = Region.around(IMAGES, ThreatModel(eps=0.5, norm="L2"))
    inside = (IMAGES + 0.001).clamp(0, 1)
    assert torch.equal(region.project(inside), inside)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_draws_in_threads_are_those_drawn_one_by_one(norm):
    one, many = (_draw_all(IMAGES.shape[1:], norm, range(40), threads=threads) for threads in (1, 8))
    assert torch.equal(one, many) and not torch.equal(one[0], one[1])
