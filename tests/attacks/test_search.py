"""The loop that all own ascents share has the bits of the plain one: fewer copies change nothing."""

import pytest
import torch

from apd_bench.attacks.losses import LOSSES, margin
from apd_bench.attacks.meter import Meter
from apd_bench.attacks.pgd import lengths, projected_ascent
from apd_bench.attacks.search import attacking
from apd_bench.core.specs import ThreatModel


def plain(net, x0, y, threat, x, loss, α):
    """Projected ascent as a textbook has it, with an active set and the best point kept; nothing in place."""
    best, record = x0.clone(), margin(net(x0), y)
    broken = net(x0).argmax(1) != y
    late = record.clone()
    rows = torch.arange(len(x0))[~broken]
    x = x[rows]

    def see(rows, x, z):
        for place, row in enumerate(rows.tolist()):
            m, hit = margin(z, y[rows])[place], z[place].argmax() != y[row]
            if m > record[row] or (hit and not broken[row]):
                best[row], record[row] = x[place], m
            broken[row] |= hit

    for step, length in enumerate(α):
        if step == int(0.9 * len(α)):
            late[rows] = record[rows]
        leaf = x.clone().requires_grad_()
        z = net(leaf)
        (g,) = torch.autograd.grad(loss(z, y[rows]).sum(), leaf)
        see(rows, x, z.detach())
        stand = ~broken[rows]
        rows, x, g = rows[stand], x[stand], g[stand]
        if not len(rows):
            return best, record, late, broken
        if threat.norm == "Linf":
            x = x + length * g.sign()
            x = x.clamp((x0[rows] - threat.eps).clamp(min=0), (x0[rows] + threat.eps).clamp(max=1))
        else:
            x = x + length * (g / g.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None])
            δ = x - x0[rows]
            far = δ.flatten(1).norm(dim=1)[:, None, None, None]
            x = (x0[rows] + δ * (threat.eps / far.clamp_min(1e-12)).clamp(max=1)).clamp(0, 1)
    see(rows, x, net(x).detach())
    return best, record, late, broken


@pytest.mark.parametrize("loss", ["stable-ce", "margin", "ce"])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 3 / 255), ("Linf", 0.5), ("L2", 0.3)])
def test_the_loop_has_the_bits_of_the_plain_one(loss, norm, eps, small_net):
    net, x, y, ids = small_net(classes=4, n=16)
    threat = ThreatModel(eps=float(eps), norm=norm)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    α = lengths(12, 0.25 * eps, "cosine")
    with attacking(net, x, y, threat, ids, 0) as search:
        start = search.random(torch.arange(len(x)), "test")
        rows = search.standing()
        projected_ascent(search, rows, start[rows], search.objective(LOSSES[loss]), α)
    best, record, late, broken = plain(net, x, y, threat, start, LOSSES[loss], α)
    assert torch.equal(search.broken, broken) and broken.any()
    tolerance = 0 if norm == "Linf" else 1e-5  # two ways to sum an L2 norm differ in the last bit
    assert torch.allclose(search.best, best, atol=tolerance, rtol=0)
    assert torch.allclose(search.margin, record, atol=100 * tolerance, rtol=0)
    assert torch.allclose(search.late_margin, late, atol=100 * tolerance, rtol=0)


def test_zero_and_bad_gradients_are_counted_and_bad_ones_replaced():
    meter = Meter(lambda x: x.flatten(1)[:, :2])
    g = torch.ones(4, 3, 2, 2)
    g[0] = 0
    g[1, 0, 0, 0] = float("nan")
    g[2, 0, 0, 0] = float("-inf")
    g[3, 0, 0, 0] = -0.0
    fine = g[3].clone()
    clean = meter._inspect(g)
    assert torch.equal(clean[3].view(torch.int32), fine.view(torch.int32))
    assert (meter.zero_gradients, meter.bad_gradients) == (1, 2)
    assert clean.isfinite().all()
    assert clean[1].sum() == 11


def test_those_that_broke_stay_where_a_search_goes_on_with_them(small_net):
    net, x, y, ids = small_net(classes=4, n=8)
    meter = Meter(net, persist=True)
    rows = torch.arange(8)
    with attacking(meter, x, y, ThreatModel(eps=0.5), ids, 0) as search:
        projected_ascent(search, rows, search.random(rows, "test"), search.objective(margin), [0.1] * 5)
    assert search.broken.any() and meter.backwards == 5 * 8
