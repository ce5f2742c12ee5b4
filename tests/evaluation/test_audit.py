"""The audit believes nothing: a lying, cheating or broken attack cannot make a number."""

from dataclasses import replace

import pytest
import torch

from apd_bench import attacks
from apd_bench.attacks.meter import Meter
from apd_bench.core.specs import ThreatModel
from apd_bench.evaluation.audit import AuditError, audit

THREAT = ThreatModel(eps=4 / 255)


@pytest.fixture
def case(small_net):
    net, x, y, ids = small_net(classes=4, n=8)
    return Meter(net), x, y, attacks.run("pgd(steps=10)", net, x, y, THREAT, ids)


def judge(case, kind="ball", **changes):
    meter, x, y, result = case
    return audit(meter, replace(result, **changes), x, y, THREAT, kind=kind)


def test_an_honest_attack_passes_and_rounding_is_repaired(case):
    found = judge(case)
    assert found.flips == 0 and torch.equal(found.broken, case[3].broken)
    assert found.norm.max() <= THREAT.eps + 1e-6
    _, x, _, result = case
    found = judge(case, adversarials=result.adversarials + 3e-8)
    assert (found.pixels - x).abs().max() <= THREAT.eps + 6e-8 and found.pixels.max() <= 1


def test_a_lie_is_counted_with_its_size_and_a_distance_attack_breaks_only_inside_the_ball(case):
    found = judge(case, broken=~case[3].broken)
    assert found.flips == 8 and found.doubt > 1e-3
    assert torch.equal(found.broken, case[3].broken)
    _, x, y, result = case
    meter = Meter(lambda pixels: case[0].model(pixels) * float("nan"))
    with pytest.raises(AuditError, match="NaN"):
        audit(meter, result, x, y, THREAT)
    meter, x, y, _ = case
    other = torch.stack([x[(i + 1) % 8] for i in range(8)])
    far = judge(case, kind="distance", adversarials=other, broken=meter.predict(other).argmax(1) != y)
    assert far.norm.min() > THREAT.eps and not far.broken.any() and far.flips == 0


@pytest.mark.parametrize(("change", "said"), [
    (lambda x: (x + 0.1).clamp(0, 1), "exceeded its budget"),
    (lambda x: x - 0.02 * (x < 0.01), "left the pixel range"),
    (lambda x: x * float("nan"), "not finite"),
    (lambda x: x[:, :, :-1], "returned the shape"),
])  # fmt: skip
def test_a_broken_budget_is_an_error(change, said, case):
    points = case[3].adversarials
    points[0, 0, 0, 0] = 0
    with pytest.raises(AuditError, match=said):
        judge(case, adversarials=change(points))
