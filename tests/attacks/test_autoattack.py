"""The adapter against the library's own driver, class counts, resume after a kill, and Square on tiny images."""

import errno
import logging
import pathlib

import pytest
import torch
from pyautoattack import AutoAttack
from torch import nn

from apd_bench.attacks.autoattack import autoattack
from apd_bench.attacks.guard import same_trace
from apd_bench.errors import MissingPrerequisite
from apd_bench.specs import ThreatModel

SHORT = {"iterations": 8, "queries": 40}


def test_the_verdicts_are_those_of_the_library_run_by_itself(small_net):
    net, x, y, ids = small_net(classes=10, n=8)
    threat = ThreatModel(eps=4 / 255)
    members = ("apgd-ce", "apgd-t", "square")  # FAB-T goes through the same lines and takes half of the time
    ours = autoattack(net, x, y, threat, sample_ids=ids, seed=3, members=members, queries=60)
    library = AutoAttack(net, norm="Linf", eps=threat.eps, version="standard", seed=3, device="cpu")
    library.square.n_queries, library.attacks_to_run = 60, list(members)
    logging.getLogger("auto-attack").setLevel(logging.CRITICAL)
    with torch.random.fork_rng(), same_trace():
        points, predictions = library.run_standard_evaluation(x, y, batch_size=8)
    logging.getLogger("auto-attack").setLevel(logging.NOTSET)
    assert torch.equal(ours.broken, predictions != y)
    assert 1 <= int(ours.broken.sum()) <= 7
    assert torch.allclose(ours.adversarials[ours.broken], points[ours.broken], atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 9, 10, 12])
def test_every_class_count_runs_the_suite_that_it_allows(classes, small_net):
    net, x, y, ids = small_net(classes=classes, n=8)
    result = autoattack(net, x, y, ThreatModel(eps=6 / 255), sample_ids=ids, seed=0, **SHORT)
    targeted = "margin-t" if classes <= 3 else "apgd-t"
    assert result.effective["members"] == ["apgd-ce", targeted, "fab-t", "square"]
    assert result.effective["targets"] == min(9, classes - 1)
    assert result.effective["package"].startswith("pyautoattack ")
    survivors = [int((~result.columns[f"broken_{name}"]).sum()) for name in result.effective["members"]]
    assert survivors == sorted(survivors, reverse=True)
    assert torch.equal(result.columns["broken_square"], result.broken)


def test_dlr_gives_way_to_the_margin_for_two_classes(small_net):
    net, x, y, ids = small_net(classes=2, n=6)
    result = autoattack(
        net, x, y, ThreatModel(eps=6 / 255), sample_ids=ids, members=("apgd-ce", "apgd-dlr"), eot=2, **SHORT
    )
    assert result.effective["members"] == ["apgd-ce", "margin"]


def test_saturated_logits_are_scaled_down_for_cross_entropy_alone(small_net):
    net, x, y, ids = small_net(classes=5, n=12)
    threat, members = ThreatModel(eps=8 / 255), ("apgd-ce",)
    plain = autoattack(net, x, y, threat, sample_ids=ids, members=members, iterations=20)
    large = autoattack(lambda x: 1e4 * net(x), x, y, threat, sample_ids=ids, members=members, iterations=20)
    assert large.effective["ce_logit_scale"] < 1e-2
    assert int(large.broken.sum()) >= int(plain.broken.sum()) - 1
    assert plain.broken.any()


@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_killed_run_resumes_and_ends_as_if_nothing_had_happened(batch_size, small_net, killed_after, tmp_path):
    from apd_bench.attacks.meter import Meter

    net, x, y, ids = small_net(classes=5, n=9)
    threat = ThreatModel(eps=3 / 255)

    def run(model, folder):
        meter = Meter(model, batch_size=batch_size)
        return autoattack(meter, x, y, threat, sample_ids=ids, seed=1, checkpoint=folder, **SHORT), meter

    whole, _ = run(net, None)
    killed = killed_after(net, 0.7 * whole.forwards)
    with pytest.raises(KeyboardInterrupt):
        run(killed, tmp_path)
    assert len(list(tmp_path.glob("attack-*.npz"))) == 1
    resumed, meter = run(net, tmp_path)
    assert resumed.effective["resumed_at"] >= 2
    assert meter.forwards < 0.7 * whole.forwards
    assert torch.equal(resumed.adversarials, whole.adversarials)
    for name, column in whole.columns.items():
        assert torch.equal(resumed.columns[name], column), name
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["torn", "other model"])
def test_a_checkpoint_that_cannot_be_trusted_is_not_used(damage, small_net, tmp_path):
    net, x, y, ids = small_net(classes=4, n=5)
    threat = ThreatModel(eps=3 / 255)
    fresh = autoattack(net, x, y, threat, sample_ids=ids, **SHORT)

    class Stop(Exception):
        pass

    def model(pixels, factor=1.0 if damage == "torn" else 2.0):
        model.calls += 1
        if model.calls > 100:
            raise Stop
        return factor * net(pixels)

    model.calls = 0
    with pytest.raises(Stop):
        autoattack(model, x, y, threat, sample_ids=ids, checkpoint=tmp_path, **SHORT)
    (file,) = tmp_path.glob("*.npz")
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:300])
    again = autoattack(net, x, y, threat, sample_ids=ids, checkpoint=tmp_path, **SHORT)
    assert "begun anew" in again.effective["checkpoint"]
    assert torch.equal(again.adversarials, fresh.adversarials)


def test_a_checkpoint_that_finds_the_disk_full_is_one_sentence_and_leaves_nothing(small_net, tmp_path, monkeypatch):
    net, x, y, ids = small_net(classes=4, n=5)

    def full(path, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", full)
    with pytest.raises(MissingPrerequisite, match="disk is full"):
        autoattack(net, x, y, ThreatModel(eps=3 / 255), sample_ids=ids, checkpoint=tmp_path, **SHORT)
    assert not list(tmp_path.iterdir())


def test_square_l2_is_left_out_where_the_library_cannot_tile(small_net):
    net, x, y, ids = small_net(classes=4, n=4, size=12)
    result = autoattack(net, x, y, ThreatModel(eps=0.3, norm="L2"), sample_ids=ids, **SHORT)
    assert "square" not in result.effective["members"] and "square" in result.effective["left_out"]


def test_the_librarys_warnings_are_kept(small_net):
    net, x, y, ids = small_net(classes=5, n=6)
    dead = nn.Sequential(net, nn.Hardtanh(-1e-3, 1e-3))  # DLR is constant where the logits are clipped

    def model(pixels):
        return net(pixels) * 0.9 + 0.1 * dead(pixels)

    result = autoattack(lambda p: net(p).detach(), x, y, ThreatModel(eps=0.01), sample_ids=ids, **SHORT)
    assert any("zero gradient" in text for text in result.diagnostics["warnings"])
    assert result.diagnostics["zero_gradients"] == result.backwards > 0
    assert "warnings" in autoattack(model, x, y, ThreatModel(eps=0.01), sample_ids=ids, **SHORT).diagnostics
