"""The side-by-side training step: both sides compute the same thing, and the verb reports it."""

import argparse
import json

import pytest

from apd_bench.bench.train import class_names, compare, markdown
from apd_bench.cli import bench
from apd_bench.errors import UsageError
from apd_bench.methods.toy import toy_backbone


@pytest.fixture(scope="module")
def backbone():
    return toy_backbone()


def test_both_steps_compute_the_same_loss_and_ours_is_not_slower(backbone):
    row = compare(backbone, 4, classes=50, repeats=3)
    assert row.loss_difference < 1e-4
    assert row.cut_length < row.context_length
    assert row.ratio > 1
    assert f"| {row.ratio:.1f}x |" in markdown([row])


def test_class_names_are_different():
    assert len(set(class_names(1000))) == 1000


def test_the_verb_writes_a_table_and_json(backbone, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("apd_bench.backbones.load.load", lambda spec, device: backbone)
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    words = [
        "train",
        "--quick",
        "--classes",
        "5",
        "--batch",
        "1,2",
        "--repeats",
        "1",
        "--json",
        str(tmp_path / "b.json"),
    ]
    assert bench.execute(parser.parse_args(words)) == 0
    printed, data = capsys.readouterr().out, json.loads((tmp_path / "b.json").read_text())
    assert printed.count("x |") == 2
    assert [row["batch"] for row in data["steps"]] == [1, 2]
    with pytest.raises(UsageError, match="whole numbers"):
        bench.execute(parser.parse_args(["train", "--batch", "four"]))
