"""The meter: exact counts, gradients for the pixels alone, float32 logits, and libraries that cannot leak."""

import pytest
import torch
from torch import nn

from apd_bench.attacks.losses import margin
from apd_bench.attacks.meter import Meter


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 4))


def test_passes_are_counted_in_images_and_the_gradient_is_autograds(net):
    meter, x = Meter(net), torch.rand(5, 3, 4, 4)
    meter.predict(x)
    meter.gradient(x[:2], lambda z: z.sum(1))
    assert (meter.forwards, meter.backwards) == (7, 2)
    assert 0 < meter.seconds < 5
    x = torch.rand(3, 3, 4, 4, requires_grad=True)
    y = torch.tensor([0, 1, 2])
    z, f, g = Meter(net).gradient(x, lambda z: margin(z, y))
    (expected,) = torch.autograd.grad(margin(net(x), y).sum(), x)
    assert torch.equal(g, expected) and torch.equal(z, net(x)) and torch.equal(f, margin(net(x), y))
    assert not z.requires_grad and not f.requires_grad


def test_a_librarys_backward_ends_at_the_pixels_and_it_may_write_into_the_logits(net):
    x = torch.rand(3, 3, 4, 4, requires_grad=True)
    meter = Meter(net)
    z = meter(x)
    z[:, 0].sum().backward(retain_graph=True)
    first = x.grad.clone()
    z[:, 1].sum().backward()
    assert torch.allclose(first[0].flatten(), net[1].weight[0]) and x.grad is not None
    assert all(parameter.grad is None for parameter in net.parameters())
    assert meter.backwards == 6
    kept = torch.rand(2, 4)
    meter = Meter(lambda x: kept)
    with torch.no_grad():
        meter(torch.rand(2, 3, 4, 4))[:] = -torch.inf
    assert kept.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_are_contiguous_float32(net, dtype):
    meter = Meter(lambda x: net(x).to(dtype).t().contiguous().t())
    z = meter.predict(torch.rand(3, 3, 4, 4))
    assert z.dtype == torch.float32 and z.is_contiguous()


def test_batches_are_kept_small(net):
    sizes = []

    def model(x):
        sizes.append(len(x))
        return net(x)

    x = torch.rand(7, 3, 4, 4)
    assert torch.allclose(Meter(model, batch_size=3).predict(x), net(x), atol=1e-6)
    assert sizes == [3, 3, 1]
    labels, small = torch.arange(7) % 4, Meter(model, batch_size=3)
    for ours, whole in zip(small.gradient(x, margin, labels), Meter(net).gradient(x, margin, labels), strict=True):
        assert torch.allclose(ours, whole, atol=1e-6)
    assert sizes[3:] == [3, 3, 1] and (small.forwards, small.backwards) == (7, 7)


def test_cut_graphs_and_nan_gradients_give_zeros_and_are_counted(net):
    meter = Meter(lambda x: net(x).detach())
    x = torch.rand(3, 3, 4, 4)
    assert not meter.gradient(x, lambda z: z.sum(1))[2].any()
    assert meter.zero_gradients == 3
    leaf = x.clone().requires_grad_()
    assert not torch.autograd.grad(meter(leaf).sum(), leaf)[0].any()
    assert meter.zero_gradients == 6

    def model(x):
        return net(x) + torch.where(x > 2, x.sqrt(), x * 0).flatten(1).sum(1, keepdim=True) * (x - x).sqrt().mean()

    meter = Meter(model)
    g = meter.gradient(torch.rand(3, 3, 4, 4), lambda z: z.sum(1))[2]
    assert g.isfinite().all() and meter.bad_gradients == 3


def test_the_callback_can_stop_an_attack(net, monkeypatch):
    monkeypatch.setattr("apd_bench.attacks.meter._REPORT_EVERY", 0.0)

    def stop(forwards, backwards):
        if forwards > 6:
            raise KeyboardInterrupt

    meter = Meter(net)
    meter.on_step = stop
    with pytest.raises(KeyboardInterrupt):
        for _ in range(9):
            meter.predict(torch.rand(2, 3, 4, 4))
    assert meter.forwards == 8
