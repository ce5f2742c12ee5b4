"""The adapter against the library's own driver, class counts, saturated logits, tiny images; Auto-PGD of our own."""

import logging
import sys

import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack

from apd_bench import attacks
from apd_bench.attacks.apgd import _checkpoints
from apd_bench.core.specs import ThreatModel

SHORT = "autoattack(iterations=8, queries=40)"


def test_the_verdicts_are_those_of_the_library_run_by_itself(small_net):
    net, x, y, ids = small_net(classes=10, n=8)
    threat = ThreatModel(eps=4 / 255)
    members = ("apgd-ce", "apgd-t", "square")  # FAB-T goes through the same lines and takes half of the time
    ours = attacks.run(f"autoattack(members={members}, queries=60)", net, x, y, threat, ids, 3)
    library = AutoAttack(net, norm="Linf", eps=threat.eps, version="standard", seed=3, device="cpu")
    library.square.n_queries, library.attacks_to_run = 60, list(members)
    logging.getLogger("auto-attack").setLevel(logging.CRITICAL)
    trace = sys.gettrace()  # which the library's checks switch off
    with torch.random.fork_rng():
        points, predictions = library.run_standard_evaluation(x, y, batch_size=8)
    sys.settrace(trace)
    logging.getLogger("auto-attack").setLevel(logging.NOTSET)
    assert torch.equal(ours.broken, predictions != y)
    assert 1 <= int(ours.broken.sum()) <= 7
    assert torch.allclose(ours.adversarials[ours.broken], points[ours.broken], atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 9, 10, 12])
def test_every_class_count_runs_the_suite_that_it_allows(classes, small_net):
    net, x, y, ids = small_net(classes=classes, n=8)
    result = attacks.run(SHORT, net, x, y, ThreatModel(eps=6 / 255), ids)
    targeted = "margin-t" if classes <= 3 else "apgd-t"
    assert result.effective["members"] == ["apgd-ce", targeted, "fab-t", "square"]
    assert result.effective["targets"] == min(9, classes - 1)
    assert result.effective["package"].startswith("pyautoattack ")


def test_members_that_the_classes_or_the_size_do_not_allow_are_replaced_or_left_out(small_net):
    net, x, y, ids = small_net(classes=2, n=6)
    text = "autoattack.ce-dlr(eot=2, iterations=8)"
    result = attacks.run(text, net, x, y, ThreatModel(eps=6 / 255), ids)
    assert result.effective["members"] == ["apgd-ce", "margin"]
    net, x, y, ids = small_net(classes=4, n=4, size=12)
    result = attacks.run(SHORT, net, x, y, ThreatModel(eps=0.3, norm="L2"), ids)
    assert "square" not in result.effective["members"] and "square" in result.effective["left_out"]


def test_saturated_logits_are_scaled_down_for_cross_entropy_alone(small_net):
    net, x, y, ids = small_net(classes=5, n=12)
    text, threat = "autoattack.apgd-ce(iterations=20)", ThreatModel(eps=8 / 255)
    plain = attacks.run(text, net, x, y, threat, ids)
    large = attacks.run(text, lambda x: 1e4 * net(x), x, y, threat, ids)
    assert large.effective["ce_logit_scale"] < 1e-2
    assert int(large.broken.sum()) >= int(plain.broken.sum()) - 1
    assert plain.broken.any()


def test_the_librarys_warnings_are_kept(small_net):
    net, x, y, ids = small_net(classes=5, n=6)
    result = attacks.run(SHORT, lambda p: net(p).detach(), x, y, ThreatModel(eps=0.01), ids)
    assert any("zero gradient" in text for text in result.diagnostics["warnings"])
    assert result.diagnostics["zero_gradients"] == result.backwards > 0
    assert not attacks.run(SHORT, net, x, y, ThreatModel(eps=0.01), ids).diagnostics["warnings"]


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
