"""The ordered suite: AutoAttack's strength for a fraction of its passes."""

import pytest
import torch

from apd_bench import attacks
from apd_bench.attacks import apgd
from apd_bench.attacks.parse import parse_attack
from apd_bench.core.errors import UnknownName
from apd_bench.core.specs import ThreatModel


def test_they_reach_autoattack_for_a_fraction_of_the_passes_the_fast_one_for_half(small_net):
    for classes in (3, 8):
        net, x, y, ids = small_net(classes=classes, n=10, size=10, seed=classes)
        threat = ThreatModel(eps=3 / 255)
        full = attacks.run("autoattack(queries=200)", net, x, y, threat, ids)
        assert 0 < int(full.broken.sum()) < 10
        for name in ("worst", "worst.fast"):
            ours = attacks.run(name, net, x, y, threat, ids)
            assert int(ours.broken.sum()) >= int(full.broken.sum())
            assert ours.backwards * 3 < full.backwards and ours.forwards * 3 < full.forwards
    net, x, y, ids = small_net(classes=12, n=16, size=10)
    full, fast = (attacks.run(name, net, x, y, ThreatModel(eps=1 / 255), ids) for name in ("worst", "worst.fast"))
    assert (fast.broken | ~full.broken).all() and not full.broken.all()
    assert 2 * fast.backwards < full.backwards and 2 * fast.forwards < full.forwards


def test_near_targets_start_where_the_others_ended_and_come_once_each(small_net):
    net, x, y, ids = small_net(classes=4, n=6)
    threat, seen = ThreatModel(eps=0.5 / 255), []

    def model(pixels):
        if pixels.requires_grad:
            seen.append(pixels.detach().clone())
        return net(pixels)

    found = attacks.run("worst(order='apgd-ce', steps=4)", net, x, y, threat, ids)
    standing = ~found.broken
    result = attacks.run("worst(order=('apgd-ce', 'apgd-near'), steps=4)", model, x, y, threat, ids)
    assert torch.equal(seen[4], found.adversarials[standing])
    assert result.backwards == found.backwards + 4 * 3 * int(standing.sum())  # `near` is 3


def test_near_takes_both_losses_in_turn(small_net, monkeypatch):
    net, x, y, ids = small_net(classes=5, n=6)
    used = []
    for name in ("targeted_dlr", "targeted_margin"):
        real = getattr(apgd, name)
        monkeypatch.setattr(apgd, name, lambda z, y, t, name=name, real=real: used.append(name) or real(z, y, t))
    attacks.run("worst(order='apgd-near', steps=2)", net, x, y, ThreatModel(eps=0.01 / 255), ids)
    assert used == ["targeted_dlr"] * 2 + ["targeted_margin"] * 2 + ["targeted_dlr"] * 2


def test_where_there_are_fewer_classes_than_runs_near_starts_again_at_random(small_net):
    net, x, y, ids = small_net(classes=2, n=6)
    starts = []

    def model(pixels):
        if pixels.requires_grad:
            starts.append(pixels.detach().clone())
        return net(pixels)

    threat = ThreatModel(eps=0.01 / 255)
    result = attacks.run("worst(order='apgd-near', steps=2)", model, x, y, threat, ids)
    standing = ~(net(x).argmax(1) != y)
    assert result.backwards == 2 * 3 * int(standing.sum()) and not result.broken[standing].any()
    first, second, third = starts[::2]
    assert torch.equal(first, x[standing])
    assert not torch.equal(second, third) and not torch.equal(second, first)
    for start in (second, third):
        assert (start - first).abs().max() <= threat.eps + 1e-7 and len(start[start != first]) > first.numel() / 2


def test_only_those_close_to_the_boundary_are_attacked_longer(small_net):
    net, x, y, ids = small_net(classes=5, n=20)
    threat = ThreatModel(eps=0.7 / 255)
    base = attacks.run("worst(order='apgd-near', steps=4)", net, x, y, threat, ids)
    standing = ~base.broken
    ratio = (base.columns["margin"] / base.columns["clean_margin"])[standing]
    share = float(ratio.median())
    near = int((ratio <= share).sum())
    assert 0 < near < int(standing.sum())

    def longer(share):
        return attacks.run(f"worst.fast(steps=4, close={share})", net, x, y, threat, ids)

    some, everyone, nobody = longer(share), longer(1.0), longer(1e-9)
    assert torch.equal(some.broken, base.broken) and torch.equal(everyone.broken, base.broken)  # so all runs are whole
    each = 4 * (3 + 4)  # cross-entropy for three times the steps, and four wrong classes
    assert some.backwards == base.backwards + each * near
    assert everyone.backwards == base.backwards + each * int(standing.sum())
    assert nobody.backwards == base.backwards
    raised = some.columns["margin"] > base.columns["margin"]
    assert raised[standing][ratio <= share].any() and not raised[standing][ratio > share].any()


def test_the_order_is_part_of_the_attack(small_net):
    net, x, y, ids = small_net(classes=5, n=6)
    assert parse_attack("worst(order=['apgd-near', 'apgd-t', 'apgd-close'])").options == {}
    spec = parse_attack("worst(order=['apgd-margin'], steps=5)")
    result = attacks.run(spec, net, x, y, ThreatModel(eps=2 / 255), ids)
    assert result.effective["members"] == ["apgd-margin"] and "broken_apgd-ce" not in result.columns
    with pytest.raises(UnknownName, match="apgd-near"):
        parse_attack("worst(order=['apgd-nera'])")
