"""Paired comparisons count the right samples and call only real differences significant."""

import json

import pytest
from synthetic import cell, dataset, fill, grid, method, outcomes, record, tables_of

from apd_bench.cli import main
from apd_bench.core.errors import UnknownName, UsageError
from apd_bench.leaderboard.comparison import compare_methods


def table_of(robust, clean):
    items = [(record(cell(method_spec=method(name))), outcomes(clean, hits)) for name, hits in robust.items()]
    return tables_of(items)


def test_wins_losses_and_the_samples_behind_them():
    found = compare_methods(table_of({"a": [1, 1, 0, 0], "b": [0, 1, 1, 0]}, [1, 1, 1, 1]), "a", "b")[0]
    worst = next(contest for contest in found.contests if contest.column == "worst")
    assert (worst.wins, worst.losses, worst.pairs, worst.difference.value) == (1, 1, 4, 0.0)
    assert [(item.sample, item.first, item.second) for item in found.disagreements] == [
        ("s00000", 1, 0), ("s00002", 0, 1),
    ]  # fmt: skip


def test_one_seed_uses_mcnemar_and_many_datasets_are_corrected():
    items = []
    for name in ("food", "places"):
        for who, hits in (("a", [1] * 9 + [0]), ("b", [0] * 10)):
            spec = cell(method_spec=method(who), data=dataset(name))
            items.append((record(spec), outcomes([1] * 10, hits)))
    contests = [item for item in compare_methods(tables_of(items), "a", "b")[0].contests if item.column == "worst"]
    assert [item.p for item in contests] == pytest.approx([2 / 512, 2 / 512])
    assert [item.adjusted for item in contests] == pytest.approx([4 / 512, 4 / 512])


def test_equal_methods_do_not_differ():
    found = compare_methods(table_of({"a": [1, 0, 1, 0], "b": [1, 0, 1, 0]}, [1, 1, 1, 1]), "a", "b")[0]
    assert found.disagreements == ()
    assert all(item.p == 1.0 for item in (*found.overall, *found.contests))


def test_untrained_methods_are_compared_with_every_seed(tmp_path):
    shares = {"zero_shot": {"clean": 0.8, "pgd": 0.1}, "apd": {"clean": 0.8, "pgd": 0.7}}
    overall = compare_methods(tables_of(grid(shares, n=60)), "apd", "zero_shot")[0].overall[0]
    assert overall.pairs == 2 * 3 * 60
    assert overall.p < 0.01
    assert overall.difference.low is not None
    assert overall.difference.low > 0


def test_unknown_and_disjoint_methods_are_explained():
    made = table_of({"a": [1], "b": [0]}, [1])
    with pytest.raises(UnknownName, match="'c'"):
        compare_methods(made, "a", "c")
    items = [
        (record(cell(method_spec=method(who), data=dataset(name))), outcomes([1], [1]))
        for who, name in (("a", "food"), ("b", "places"))
    ]
    with pytest.raises(UsageError, match="no dataset in common"):
        compare_methods(tables_of(items), "a", "b")


def test_verb_prints_a_table_and_json(tmp_path, capsys):
    shares = {"zero_shot": {"clean": 0.8, "pgd": 0.1}, "apd": {"clean": 0.8, "pgd": 0.7}}
    path = fill(tmp_path / "r", grid(shares, seeds=(1, 2)))
    assert main(["compare", "apd", "zero_shot", "--results", str(path)]) == 0
    text = capsys.readouterr().out
    assert "apd against zero_shot" in text
    assert "samples differ" in text
    assert main(["compare", "apd", "zero_shot", "--results", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["overall"][0]["column"] == "worst"
