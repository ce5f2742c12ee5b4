"""Auto-PGD: the published checkpoints, and the strength of the authors' code."""

import torch
from pyautoattack.autopgd_base import APGDAttack

from apd_bench import attacks
from apd_bench.attacks.apgd import _checkpoints
from apd_bench.core.specs import ThreatModel


def test_the_checkpoints_are_those_of_the_paper():
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(_checkpoints(5)) == [1, 2, 3, 4]


def test_it_is_as_strong_as_the_authors_code_with_fewer_gradients(small_net):
    ours = theirs = spent = asked = 0
    for seed in range(4):
        net, x, y, ids = small_net(classes=5, n=20, size=10, seed=seed)
        net.requires_grad_(False)
        threat = ThreatModel(eps=3 / 255)
        result = attacks.run("apgd-ce(loss='ce')", net, x, y, threat, ids)
        with torch.random.fork_rng():
            library = APGDAttack(net, n_iter=20, eps=threat.eps, seed=0, device="cpu")
            points = library.perturb(x, y)
        ours, theirs = ours + int(result.broken.sum()), theirs + int((net(points).argmax(1) != y).sum())
        spent, asked = spent + result.backwards, asked + 21 * len(x)
    assert 20 <= theirs <= 70
    assert ours >= theirs - 1
    assert spent < 0.8 * asked
