"""The board of test-time defences: from a run to its files, beside the other boards and never among them."""

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from apd_bench.leaderboard.boards import check_boards, collect, render_files, write_boards
from apd_bench.leaderboard.defences import LEGEND, _both
from apd_bench.records.store import Store
from apd_bench.runner.run import run

ADAPTIVE = "adaptive(iterations=2, near=1, targets=1, queries=2)"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("defended")
    asked = {"methods": "zero_shot", "datasets": "food,fashion", "limit": 6, "no_reference": True, "results": path}
    records = run("embedded", attacks=f"pgd(steps=3),{ADAPTIVE}", defences="clipure,anti_adversary", shard=3, **asked)
    assert not records.report.failures and len(records) == 10
    again = run("embedded", attacks=f"pgd(steps=3),{ADAPTIVE}", defences="clipure,anti_adversary", shard=3, **asked)
    assert again.report.to_do == 0
    return path


def test_rows_are_defences_over_methods_with_every_column_and_the_gap(store):
    boards = collect([store])
    assert {item.cell.defence for item in boards.measurements} == {None}
    (table,) = boards.defences
    assert [row.defence for row in table.rows] == ["anti_adversary", "clipure_cos"] and table.datasets == (
        "fashion",
        "food",
    )
    for row in table.rows:
        value = {name: estimate.value for name, estimate in row.estimates.items()}
        assert (row.done, row.planned) == (4, 4)
        assert value["worst"] <= min(value["static pgd(steps=3)"], value["adaptive"]) <= value["clean"]
        assert row.gap.value == pytest.approx(value["static pgd(steps=3)"] - value["worst"])
    clipure = table.rows[1].estimates
    assert clipure["static pgd(steps=3)"].value == clipure["undefended pgd(steps=3)"].value  # an even number of steps
    assert (table.rows[0].cost["forwards"], table.rows[0].cost["backwards"]) == (4, 2)


def test_files_stand_beside_the_others_and_are_checked_with_them(store, tmp_path):
    files = render_files(collect([store]), ("md", "csv", "json", "html"))
    assert {"embedded-defences.md", "embedded-defences.csv", "embedded.md"} <= files.keys()
    assert "clipure" not in files["embedded.md"] and "| clipure_cos | zero_shot |" in files["embedded-defences.md"]
    lines = list(csv.DictReader(io.StringIO(files["embedded-defences.csv"])))
    assert {line["column"] for line in lines} >= {"clean", "adaptive", "worst", "gap", "static pgd(steps=3)"}
    rows = json.loads(files["embedded-defences.json"])["tables"][0]["rows"]
    csv_of = {(line["defence"], line["column"]): float(line["accuracy"]) for line in lines}
    for row in rows:
        assert row["cells"] == {"done": 4, "planned": 4} and row["prediction_cost"]["forwards"] >= 1
        for name, estimate in {**row["accuracy"], "gap": row["gap"]}.items():
            assert csv_of[row["defence"], name] == pytest.approx(100 * estimate["value"], abs=1e-3)
    section = files["embedded.html"].partition('<section id="defences">')[2].partition("</section>")[0]
    assert all(text in section for text in ("clipure_cos", "anti_adversary", "static pgd(steps=3)", LEGEND[-1][:1]))
    assert f"{100 * rows[0]['accuracy']['adaptive']['value']:.1f}" in section
    bare = collect([store], cells={item.id for item in collect([store]).measurements})
    assert "defences" not in render_files(bare, ("html",))["embedded.html"].partition("<main>")[0]
    write_boards([store], tmp_path)
    assert tmp_path / "embedded-defences.md" in check_boards([store], tmp_path)


def test_two_settings_of_an_attack_leave_what_survives_both(store):
    item = collect([store]).measurements[0]
    yes, no = np.ones(6, dtype=bool), np.zeros(6, dtype=bool)
    first, second = yes.copy(), yes.copy()
    first[0] = second[1] = False
    one, two = (
        replace(item, evidence=replace(item.evidence, robust=robust), members=members, share=share, suspect=marks)
        for robust, members, share, marks in (
            (first, {"replay": ~first}, np.full(6, 0.2), ("a",)),
            (second, {"replay": ~second, "gate": no}, np.full(6, 0.1), ("a", "b")),
        )
    )
    both = _both(one, two)
    assert both.evidence.robust.tolist() == [False, False, True, True, True, True]
    assert both.members["replay"].tolist() == (~both.evidence.robust).tolist() and not both.members["gate"].any()
    assert both.share.tolist() == [0.1] * 6 and both.suspect == ("a", "b")
    failed = replace(two, status="error", evidence=None)
    assert _both(one, failed) is failed and _both(failed, one) is failed


def test_a_sample_has_to_survive_every_setting_of_the_adaptive_attack(store, tmp_path):
    path = tmp_path / "results"
    shutil.copytree(store, path)
    longer = "adaptive(iterations=5, near=1, targets=1, queries=2)"
    asked = {"methods": "zero_shot", "limit": 6, "no_reference": True, "results": path}
    run("embedded", attacks=longer, defences="anti_adversary", datasets="food,fashion", **asked)
    boards = collect([path])
    (table,) = boards.defences
    broken = []
    for data in ("fashion", "food"):
        cells = [record for record in Store(path).records() if record.cell.dataset.name == data
                 and record.cell.defence is not None and record.cell.defence.name == "anti_adversary"
                 and record.cell.attack.name == "adaptive"]  # fmt: skip
        assert len(cells) == 2
        broken.append(np.logical_or.reduce([Store(path).outcomes(record.id).broken for record in cells]))
    first, second = table.rows
    assert first.estimates["adaptive"].value == pytest.approx(1 - np.mean(broken))
    assert (first.done, first.planned) == (second.done, second.planned) == (4, 4)
    text = render_files(boards, ("md",))["embedded-defences.md"]
    assert "- adaptive(iterations=2, near=1, queries=2, targets=1): all rows" in text
    assert "- adaptive(iterations=5, near=1, queries=2, targets=1): anti_adversary over zero_shot (2 cells)" in text
