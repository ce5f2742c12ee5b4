"""The verb `report`: screen, files, one file, filters, staleness, and its mistakes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import cell, dataset, fill, grid, outcomes, record

from apd_bench.cli import main
from apd_bench.defences.parse import parse_defence
from apd_bench.records.store import Store

SHARES = {"zero_shot": {"clean": 0.7, "pgd": 0.1, "cw": 0.1}, "advtp": {"clean": 0.6, "pgd": 0.4, "cw": 0.3}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    items = grid(SHARES, seeds=(1, 2)) + grid(SHARES, seeds=(1, 2), eps=4 / 255)
    return str(fill(tmp_path_factory.mktemp("report") / "results", items))


def test_the_screen_and_its_filters_take_aliases_and_both_spellings_of_eps(store, capsys):
    assert main(["report", store]) == 0
    assert capsys.readouterr().out.count("| rank | method |") == 2
    words = ["--methods", "apt", "--eps", "0.00784313725", "--seeds", "1-1", "--attacks", "pgd"]
    assert main(["report", store, *words]) == 0
    shown = capsys.readouterr().out
    assert shown.count("| rank | method |") == 1
    assert "zero_shot" not in shown
    assert "2/2" in shown
    assert "further attack cw" in shown


@pytest.mark.parametrize(("budget", "norms"), [("3.0", {"L2"}), ("0.5", {"Linf", "L2"}), ("4/255", {"Linf"})])
def test_a_budget_is_that_of_the_norms_that_have_it(budget, norms, tmp_path, capsys):
    budgets = {"L2": (3.0, 0.5, 0.2), "Linf": (4 / 255, 0.5, 1 / 255)}
    items = [item for norm in budgets for eps in budgets[norm] for item in grid(SHARES, norm=norm, eps=eps)]
    store = str(fill(tmp_path / "results", items))
    assert main(["report", store, "--eps", budget]) == 0
    shown = capsys.readouterr().out
    assert {norm for norm in budgets if f"Threat: {norm}, eps" in shown} == norms
    assert shown.count("| rank | method |") == len(norms)
    assert main(["report", store, "--eps", "nan"]) == 2
    assert "eps 'nan' is not a number" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "name", "near"), [
    ("--methods", "advpt", "advtp"), ("--datasets", "foot", "food"), ("--backbones", "tiny-clear", "tiny-clean"),
    ("--group", "embeded", "embedded"), ("--attacks", "pgdd", "pgd"),
])  # fmt: skip
def test_a_name_that_no_record_has_is_said(option, name, near, store, capsys):
    assert main(["report", store, option, name]) == 2
    assert f"'{name}'. Did you mean '{near}'?" in capsys.readouterr().err


def test_files_and_check(store, tmp_path, capsys):
    out = str(tmp_path / "boards")
    assert main(["report", store, "--out", out, "--format", "md,csv,json,tex"]) == 0
    assert len(capsys.readouterr().out.split()) == 5
    assert main(["report", store, "--out", out, "--check"]) == 0
    (tmp_path / "boards" / "embedded.md").write_text("other")
    assert main(["report", store, "--out", out, "--check"]) == 3
    assert "embedded.md" in capsys.readouterr().err


def test_one_file(store, tmp_path, capsys):
    path = tmp_path / "mine.json"
    assert main(["report", store, "--board", str(path)]) == 0
    content = json.loads(path.read_text())
    assert len(content["tables"]) == 2
    means = [row["means"] for row in content["tables"][0]["rows"]]
    assert means[0]["worst"]["n"] == 80
    gains = [each["gain"] for each in means if "gain" in each]  # of all but zero-shot, with their intervals
    assert len(gains) == len(means) - 1 and all(gain["low"] <= gain["value"] <= gain["high"] for gain in gains)
    assert main(["report", store, "--board", str(path), "--check"]) == 0
    path.write_text("{}")
    assert main(["report", store, "--board", str(path), "--check"]) == 3
    assert main(["report", store, "--board", str(tmp_path / "mine.doc")]) == 2
    assert "no board format 'doc'" in capsys.readouterr().err


def test_groups_never_share_a_file(tmp_path, capsys):
    items = grid(SHARES, datasets=("food",), seeds=(1,))
    assert dataset().group == items[0][0].cell.dataset.group == "embedded"
    other = dataset("caltech101", group="benchmark")
    real = [(record(replace(one.cell, dataset=other)), result) for one, result in items]
    path = fill(tmp_path / "r", [*items, *real])
    assert main(["report", str(path), "--board", str(tmp_path / "b.md")]) == 2
    assert "--group" in capsys.readouterr().err
    assert main(["report", str(path), "--board", str(tmp_path / "b.md"), "--group", "benchmark"]) == 0
    assert "embedded suite" not in (tmp_path / "b.md").read_text()


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["embedded", "tiny-robust", "ablation", "defences"])
def test_committed_boards_are_what_the_committed_records_say(name):
    present = {path.suffix[1:] for path in (ROOT / "leaderboards" / name).glob("embedded*")}
    boards = ["report", str(ROOT / "results" / name), "--out", str(ROOT / "leaderboards" / name)]
    assert {"md", "csv"} <= present
    assert main([*boards, "--format", ",".join(sorted(present)), "--check"]) == 0


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/cells")), ids=lambda path: path.parent.name)
def test_committed_records_come_from_committed_code(path):
    seen = {record.id: record.environment for record in Store(path.parent).records()}
    assert seen and not [name for name, made in seen.items() if not made.get("commit") or made.get("dirty")]


def test_nothing_stored_is_explained(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "There are no records" in capsys.readouterr().err
    assert main(["report", str(fill(tmp_path / "empty", []))]) == 0
    assert "apd-bench run" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "empty"), "--seeds", "one"]) == 2


def test_a_cell_with_a_defence_has_no_pictures_of_the_model_without_it(cli, tmp_path):
    defended = cell(defence=parse_defence("ttc"))
    fill(tmp_path / "results", [(record(defended), outcomes([1, 1], [1, 0]))])
    assert "No finished cell" in cli("examples", "results").err
