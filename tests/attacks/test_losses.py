"""The losses against their formulas, and the reason why the stable form exists."""

import pytest
import torch
from torch.nn import functional

from apd_bench.attacks import losses


def test_losses_match_their_papers():
    z, y = torch.randn(6, 5) * 3, torch.tensor([0, 1, 2, 3, 4, 0])
    assert torch.allclose(functional.softplus(losses.stable_ce(z, y)), losses.ce(z, y), atol=1e-5)
    z, y = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]]), torch.tensor([1, 1])
    assert losses.margin(z, y).tolist() == [-1.0, 5.0]
    assert losses.targeted_margin(z, y, torch.tensor([0, 2])).tolist() == [-2.0, 1.0]
    z, y = torch.tensor([[1.0, 3.0, 2.0, 0.0]]), torch.tensor([1])
    assert losses.dlr(z, y).item() == pytest.approx((2 - 3) / (3 - 1))
    assert losses.targeted_dlr(z, y, torch.tensor([3])).item() == pytest.approx((0 - 3) / (3 - 0.5 * (1 + 0)))
    assert losses.dlr(z[:, :2], y).item() == -2.0
    assert losses.targeted_dlr(z[:, :3], y, torch.tensor([0])).item() == -2.0
    clean = torch.randn(4, 3)
    assert torch.allclose(losses.kl_from_clean(clean, clean), torch.zeros(4))
    assert (losses.kl_from_clean(clean + torch.randn(4, 3), clean) > 0).all()


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_the_stable_gradient_is_exact_where_the_plain_one_is_lost(scale):
    z = (torch.tensor([[3.0, 1.0, 0.5]]) * scale).requires_grad_()
    y = torch.tensor([0])
    (stable,) = torch.autograd.grad(losses.stable_ce(z, y).sum(), z)
    exact = torch.tensor([[1.0, 0.5, 0.5]])  # |d/dz| of u: 1 for the true class, softmax over the others
    assert stable[0, 0] == -1 and torch.isclose(stable[0, 1:].sum(), exact[0, 0])
    (plain,) = torch.autograd.grad(losses.ce(z, y).sum(), z)
    assert (plain.abs().max() == 0) == (scale >= 100)
