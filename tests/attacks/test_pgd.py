"""PGD, CW and TPGD: the best point is returned, restarts help, presets are what they say, survivors alone go on."""

import pytest
import torch

from apd_bench import attacks
from apd_bench.attacks.losses import margin
from apd_bench.attacks.pgd import lengths
from apd_bench.core.specs import ThreatModel


@pytest.mark.parametrize("options", ["", ", loss='margin'", ", step=1, schedule='constant'", ", restarts=3"])
def test_the_best_point_seen_is_the_one_returned(options, small_net):
    net, x, y, ids = small_net(classes=4, n=6)
    for i in range(6):
        seen = []

        def model(pixels, seen=seen):
            seen.extend(pixels.detach().clone())
            return net(pixels)

        one = slice(i, i + 1)
        result = attacks.run(f"pgd(steps=8{options})", model, x[one], y[one], ThreatModel(eps=2 / 255), ids[one])
        points = torch.stack(seen)
        best = margin(net(points), y[one].expand(len(points))).max()
        if not result.broken.any():
            assert margin(net(result.adversarials), y[one]).item() == pytest.approx(best.item(), abs=1e-5)


def test_survivors_alone_cost_gradients_and_restarts_only_add(small_net):
    net, x, y, ids = small_net(classes=4, n=16)
    result = attacks.run("pgd(steps=30)", net, x, y, ThreatModel(eps=3 / 255), ids)
    survivors = int((~result.broken).sum())
    assert 0 < survivors < 16
    assert 30 * survivors <= result.backwards < 30 * 16 - 200
    net, x, y, ids = small_net(classes=4, n=16)
    threat = ThreatModel(eps=3 / 255)
    one = attacks.run("pgd(steps=3)", net, x, y, threat, ids)
    three = attacks.run("pgd(steps=3, restarts=3)", net, x, y, threat, ids)
    assert (three.broken | ~one.broken).all()
    assert torch.equal(three.adversarials[one.broken], one.adversarials[one.broken])


def test_the_default_is_not_weaker_than_the_published_protocols(small_net):
    for seed in range(2):
        net, x, y, ids = small_net(classes=6, n=16, seed=seed)
        for eps in (2 / 255, 3 / 255):
            threat = ThreatModel(eps=eps)
            broken = {
                name: int(attacks.run(name, net, x, y, threat, ids).broken.sum())
                for name in ("pgd", "pgd.apt", "pgd.literature")
            }
            assert broken["pgd"] >= broken["pgd.apt"] >= broken["pgd.literature"] - 1, broken


def test_step_lengths():
    assert lengths(3, 0.5, "constant") == [0.5, 0.5, 0.5]
    falling = lengths(40, 0.25, "cosine")
    assert falling[0] == pytest.approx(0.25) and falling[-1] == pytest.approx(0.025)
    assert falling == sorted(falling, reverse=True)
    assert lengths(1, 0.25, "cosine") == [0.25]


def test_tpgd_beats_noise(small_net):
    net, x, y, ids = small_net(classes=4, n=12)
    threat = ThreatModel(eps=16 / 255)
    tpgd, noise = (attacks.run(text, net, x, y, threat, ids) for text in ("tpgd(steps=20)", "noise(draws=5)"))
    assert int(tpgd.broken.sum()) > int(noise.broken.sum())
