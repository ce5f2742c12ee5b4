"""A suite that was killed goes on where it was, and never from a state that cannot be trusted."""

import errno
import pathlib

import pytest
import torch

from apd_bench import attacks
from apd_bench.attacks.meter import Meter
from apd_bench.core.errors import MissingPrerequisite
from apd_bench.core.specs import ThreatModel

SHORT = "autoattack(iterations=8, queries=40)"


@pytest.mark.parametrize(("text", "batch_size"), [(SHORT, None), (SHORT, 3), ("worst(steps=8)", None)])
def test_a_killed_run_resumes_and_ends_as_if_nothing_had_happened(text, batch_size, small_net, killed_after, tmp_path):
    net, x, y, ids = small_net(classes=5, n=9)

    def run(model, folder):
        meter = Meter(model, batch_size=batch_size)
        return attacks.run(text, meter, x, y, ThreatModel(eps=3 / 255), ids, 1, checkpoint=folder), meter

    whole, _ = run(net, None)
    with pytest.raises(KeyboardInterrupt):
        run(killed_after(net, 0.75 * whole.forwards), tmp_path)
    assert len(list(tmp_path.glob("attack-*.npz"))) == 1
    resumed, meter = run(net, tmp_path)
    assert resumed.effective["resumed_at"] >= 1 and meter.forwards < 0.8 * whole.forwards
    assert torch.equal(resumed.adversarials, whole.adversarials)
    assert resumed.columns.keys() == whole.columns.keys()
    for name, column in whole.columns.items():
        assert torch.equal(resumed.columns[name], column), name
    if batch_size is None:  # else a batch that was under way is made again
        assert resumed.backwards == whole.backwards
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["torn", "other model"])
def test_a_checkpoint_that_cannot_be_trusted_is_not_used(damage, small_net, tmp_path):
    net, x, y, ids = small_net(classes=4, n=5)
    threat = ThreatModel(eps=3 / 255)
    fresh = attacks.run(SHORT, net, x, y, threat, ids)

    class Stop(Exception):
        pass

    def model(pixels, factor=1.0 if damage == "torn" else 2.0):
        model.calls += 1
        if model.calls > 100:
            raise Stop
        return factor * net(pixels)

    model.calls = 0
    with pytest.raises(Stop):
        attacks.run(SHORT, model, x, y, threat, ids, checkpoint=tmp_path)
    (file,) = tmp_path.glob("*.npz")
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:300])
    again = attacks.run(SHORT, net, x, y, threat, ids, checkpoint=tmp_path)
    assert "begun anew" in again.effective["checkpoint"]
    assert torch.equal(again.adversarials, fresh.adversarials)


def test_a_checkpoint_that_finds_the_disk_full_is_one_sentence_and_leaves_nothing(small_net, tmp_path, monkeypatch):
    net, x, y, ids = small_net(classes=4, n=5)

    def full(path, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", full)
    with pytest.raises(MissingPrerequisite, match="disk is full"):
        attacks.run(SHORT, net, x, y, ThreatModel(eps=3 / 255), ids, checkpoint=tmp_path)
    assert not list(tmp_path.iterdir())
