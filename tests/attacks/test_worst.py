"""The ordered suite: AutoAttack's strength for a fraction of its passes, and its resume."""

from itertools import pairwise

import pytest
import torch

from apd_bench.attacks.autoattack import autoattack
from apd_bench.attacks.worst import MEMBERS, worst
from apd_bench.specs import ThreatModel


def test_it_reaches_autoattack_for_a_fraction_of_the_passes(small_net):
    for classes in (3, 8):
        net, x, y, ids = small_net(classes=classes, n=10, size=10, seed=classes)
        threat = ThreatModel(eps=3 / 255)
        ours = worst(net, x, y, threat, sample_ids=ids)
        full = autoattack(net, x, y, threat, sample_ids=ids, queries=200)
        assert 0 < int(full.broken.sum()) < 10
        assert int(ours.broken.sum()) >= int(full.broken.sum())
        assert ours.backwards * 4 < full.backwards and ours.forwards * 4 < full.forwards


def test_it_resumes_after_its_last_finished_member(small_net, tmp_path):
    net, x, y, ids = small_net(classes=5, n=10)
    threat = ThreatModel(eps=3 / 255)
    whole = worst(net, x, y, threat, sample_ids=ids, steps=8)
    passes = 0

    def killed(pixels):
        nonlocal passes
        passes += len(pixels)
        if passes > 0.8 * whole.forwards:
            raise KeyboardInterrupt
        return net(pixels)

    with pytest.raises(KeyboardInterrupt):
        worst(killed, x, y, threat, sample_ids=ids, steps=8, checkpoint=tmp_path)
    resumed = worst(net, x, y, threat, sample_ids=ids, steps=8, checkpoint=tmp_path)
    assert resumed.effective["resumed_at"] >= 1
    assert resumed.forwards == whole.forwards + len(x)  # the clean prediction is made again
    assert resumed.backwards == whole.backwards
    assert torch.equal(resumed.adversarials, whole.adversarials)
    assert not list(tmp_path.iterdir())


def test_every_member_only_adds(small_net):
    net, x, y, ids = small_net(classes=6, n=20)
    result = worst(net, x, y, ThreatModel(eps=3 / 255), sample_ids=ids)
    columns = [result.columns[f"broken_{name}"] for name in MEMBERS]
    for before, after in pairwise(columns):
        assert (after | ~before).all()
    assert torch.equal(columns[-1], result.broken)
