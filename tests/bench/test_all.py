"""`apd-bench bench` without a part reads the numbers of the parts and writes one table; wrong words are explained."""

import argparse
import json

import pytest

from apd_bench.bench.rows import Row, document
from apd_bench.cli import bench, bench_all
from apd_bench.errors import CorruptFile, MissingPrerequisite, UsageError


def parse(*words):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(words)


def test_the_summary_reads_every_part(tmp_path, capsys):
    row = Row(part="loop", what="PGD", ours=(1.1,), limit=(1.0,))
    (tmp_path / "loop.json").write_text(json.dumps(document("loop", [row])))
    side = {"seconds": [2.0], "backwards": 8, "robust_accuracy": 0.5}
    pair = {
        "attack": "pgd", "backbone": "b", "eps": 4 / 255, "ids": ["1", "2"], "limit_seconds": [],
        "usual": side, "ours": {**side, "seconds": [1.0]},
    }  # fmt: skip
    (tmp_path / "attacks.json").write_text(json.dumps({"pairs": [pair]}))
    assert bench.execute(parse("--read", "--out", str(tmp_path))) == 0
    table = capsys.readouterr().out
    assert "| loop | PGD |" in table and "+10.0 %" in table
    assert "| attacks | pgd on b, 4/255, 2 images | 2 s | 1 s | 2.0x |" in table
    assert (tmp_path / "summary.md").read_text() in table
    assert json.loads((tmp_path / "summary.json").read_text())["loop"]["part"] == "loop"


def test_all_parts_are_measured_in_processes_of_their_own(tmp_path, monkeypatch, capsys):
    asked = []

    def run(words, **options):
        asked.append(words[4:])
        name = words[4]
        if name == "data":
            return argparse.Namespace(returncode=2, stderr="apd-bench: error: no space")
        row = Row(part=name, what="w", ours=(1.0,))
        (tmp_path / f"{name}.json").write_text(json.dumps(document(name, [row])))
        return argparse.Namespace(returncode=0, stderr="")

    monkeypatch.setattr(bench_all.subprocess, "run", run)
    assert bench.execute(parse("--quick", "--out", str(tmp_path))) == 1
    assert [words[0] for words in asked] == list(bench.parts())
    assert all("--quick" in words for words in asked)
    shown = capsys.readouterr()
    assert "no space" in shown.err
    assert "| store | w |" in shown.out and "| data |" not in shown.out


def test_what_cannot_be_read_is_explained(tmp_path):
    with pytest.raises(UsageError, match="folder to read"):
        bench.execute(parse("--read"))
    with pytest.raises(MissingPrerequisite, match="no numbers"):
        bench.execute(parse("--read", "--out", str(tmp_path)))
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(CorruptFile, match=r"store\.json"):
        bench.execute(parse("--read", "--out", str(tmp_path)))


@pytest.mark.parametrize(
    "content",
    ["[1]", "3", "{}", '{"rows": [{"what": "w", "ours": [1]}]}', '{"rows": [{"part": "p", "what": "w", "ours": 5}]}',
     '{"rows": [], "machine": []}', '{"pairs": [{"attack": "pgd"}]}'],
)  # fmt: skip
def test_numbers_of_another_shape_are_named_and_no_summary_is_written(tmp_path, content):
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(CorruptFile, match=r"store\.json does not hold the numbers of bench store.*bench store --json"):
        bench.execute(parse("--read", "--out", str(tmp_path)))
    assert not (tmp_path / "summary.md").exists()


def test_a_folder_that_cannot_be_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_all.subprocess, "run", lambda *_, **__: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingPrerequisite, match="Choose another place: --out DIR") as caught:
        bench.execute(parse("--quick", "--out", str(tmp_path / "file")))
    assert "--results" not in str(caught.value)


def test_parts_hear_nothing_of_the_options_of_all_parts(tmp_path, monkeypatch):
    monkeypatch.setenv("APD_BENCH_OUT", str(tmp_path))
    heard = []

    def run(words, *, env, **options):
        heard.append(env)
        return argparse.Namespace(returncode=2, stderr="")

    monkeypatch.setattr(bench_all.subprocess, "run", run)
    assert not bench_all._measure("loop", tmp_path, quick=True)
    assert "APD_BENCH_OUT" not in heard[0] and "PATH" in heard[0]


@pytest.mark.parametrize(
    "words",
    ["loop --batch 0", "store --records many", "memory --classes 0", "data --limit 0", "precision --limit -1"],
)
def test_numbers_that_make_no_sense_are_refused_before_anything_is_measured(words):
    with pytest.raises(UsageError):
        bench.execute(parse(*words.split()))
