"""Words around a part reach it or are refused; devices and files are tried before anything is measured."""

import json

import pytest
import torch

from apd_bench.bench.rows import Row
from apd_bench.cli import bench, main, verb_parser

WITH_DEVICE = ("attacks", "loop", "train", "memory", "precision")
HAVE_CUDA = torch.cuda.is_available()


def parse(*words):
    return verb_parser("bench").parse_args(words)


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    monkeypatch.setattr("apd_bench.backbones.load.load", lambda *_: pytest.fail("loaded"))


@pytest.fixture
def said(capsys):
    def run(*words):
        assert main(["bench", *words]) == 2
        shown = capsys.readouterr()
        assert shown.out == "" and shown.err.count("\n") == 1
        return shown.err

    return run


@pytest.mark.parametrize("part", bench.parts())
def test_quick_counts_before_and_after_the_part(part, monkeypatch):
    assert parse("--quick", part).quick is parse(part, "--quick").quick is True
    assert parse(part).quick is parse().quick is False
    monkeypatch.setenv("APD_BENCH_QUICK", "1")
    assert parse(part).quick is True
    monkeypatch.setenv("APD_BENCH_QUICK", "0")
    assert parse("--quick", part).quick is True and parse(part).quick is False


@pytest.mark.parametrize("words", [("--out", "x"), ("--read",), ("--read", "--out", "x")])
def test_options_of_all_parts_are_refused_with_one(words, said):
    told = said(*words, "train")
    assert "for all parts together" in told and "apd-bench bench train --json FILE --markdown FILE" in told


def test_an_unknown_option_of_a_part_gets_those_of_the_part(said):
    told = said("attacks", "--backbone", "x")
    assert "Unknown option '--backbone'" in told and "--models" in told and "--out" not in told
    assert "See: apd-bench bench attacks --help" in told
    assert "Unknown option '--out'" in said("attacks", "--out", "x")
    assert "Unrecognized arguments: x" in said("loop", "x")


@pytest.mark.parametrize("part", WITH_DEVICE)
def test_a_device_that_is_not_there_is_one_sentence(part, said):
    assert "Device 'nonsense' is not one of: cpu, cuda" in said(part, "--device", "nonsense")
    assert "There is no device 'cuda:99' here" in said(part, "--device", "cuda:99")
    if not HAVE_CUDA:
        assert "Use --device cpu." in said(part, "--device", "cuda")


@pytest.mark.parametrize("option", ["--models", "--datasets", "--attacks"])
def test_precision_of_nothing_is_refused(option, said):
    assert f"{option} ',' names nothing" in said("precision", option, ",")


@pytest.mark.parametrize("option", ["--json", "--markdown"])
def test_files_that_cannot_be_are_refused_before_anything_is_measured(option, said, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "x", tmp_path, tmp_path / ("n" * 300)):
        told = said("loop", "--quick", option, str(place))
        assert f"Cannot write to {place}" in told and f"Choose another place: {option} FILE" in told
        assert "--results" not in told


def test_trying_a_file_leaves_nothing_behind(said, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "later")
    (tmp_path / "old").write_text("kept")
    for name in ("new/deep/x", "link", "old"):
        said("precision", "--datasets", ",", "--json", str(tmp_path / name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "old"]
    assert (tmp_path / "old").read_text() == "kept"


def test_repeats_that_were_asked_for_hold_with_quick_too(monkeypatch, tmp_path, capsys):
    asked = []

    def rows(*words):
        asked.append(words[-1])
        return [Row(part="p", what="w", ours=(1.0,))]

    monkeypatch.setattr("apd_bench.bench.startup.startup_rows", rows)
    monkeypatch.setattr("apd_bench.bench.stores.store_rows", rows)
    for part in ("startup", "store"):
        for words in ([], ["--quick"], ["--quick", "--repeats", "2"]):
            assert main(["bench", part, *words, "--json", str(tmp_path / "new" / "x.json")]) == 0
    assert asked == [5, 1, 2, 3, 1, 2]
    assert json.loads((tmp_path / "new" / "x.json").read_text())["rows"][0]["part"] == "p"
