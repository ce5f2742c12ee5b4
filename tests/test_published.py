"""Published numbers keep their source, and stand beside ours only where the protocol is the same."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "leaderboard"))

from synthetic import cell, dataset, method, outcomes, record

from apd_bench import published
from apd_bench.errors import UnknownName
from apd_bench.leaderboard.aggregate import tables
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.tidy import measurement
from apd_bench.specs import BackboneSpec, MethodRecipe

CLIP = BackboneSpec(
    name="ViT-B-32-quickgelu/openai", architecture="ViT-B-32-quickgelu", weights="openai", activation="quickgelu"
)
FAP = method("fap")


def table(recipe: MethodRecipe = FAP, **changes: object) -> Table:
    settings: dict = {
        "backbone": CLIP,
        "eps": 1 / 255,
        "fit": {"resize": "squash"},
        "resize": "crop",
        "data": dataset("eurosat", group="benchmark"),
    }
    settings |= changes
    spec = cell(method_spec=recipe, attack="autoattack", **settings)
    return tables([measurement(record(spec), outcomes([1, 1, 1, 0], [1, 0, 0, 0]))])[0]


def test_every_number_has_a_source_table_with_a_protocol() -> None:
    numbers = published.load_published()
    assert len(numbers) == 1617
    described = {(entry["source"], entry["table"]) for entry in published.protocols()["tables"]}
    assert {(item.source, item.table) for item in numbers} == described
    assert all("match" in entry or "why_not" in entry for entry in published.protocols()["tables"])
    assert all(0 <= item.value <= 100 for item in numbers)


def test_select_by_name_and_the_error_for_what_is_not_there() -> None:
    items = published.select(source="fap", table="Table 15", method="FAP", dataset="eurosat", shots="16")
    assert {item.stat for item in items} == {"mean", "std"}
    with pytest.raises(UnknownName, match="Table 8"):
        published.select(source="FAP", table="Table 99")


def test_pivot_has_one_column_per_dataset_and_the_mean_of_complete_rows() -> None:
    header, body = published.pivot(published.select(table="Table 2", source="TAPT", method="APT-V", backbone="B/16"))
    assert len(header) == 9 + 11 + 1
    values = [float(value) for value in body[0][9:20]]
    assert float(body[0][-1]) == pytest.approx(sum(values) / 11, abs=0.006)


def test_a_number_is_paired_where_everything_agrees() -> None:
    (pair,) = published.pairs(table())
    assert (pair.published.table, pair.column, pair.dataset, pair.method) == ("Table 14", "clean", "eurosat", "fap")
    assert pair.difference == pytest.approx(75 - pair.published.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": replace(CLIP, name="ViT-B-32-quickgelu/laion2b")},
        {"backbone": replace(CLIP, training="robust")},
        {"limit": 100},
        {"shots": 3},
        {"fit": {"resize": "crop"}},
        {"resize": "squash"},
        {"data": dataset("food", group="benchmark")},
        {"recipe": method("unheard_of")},
    ],
    ids=str,
)
def test_nothing_is_paired_when_one_part_of_the_protocol_differs(changes: dict) -> None:
    assert published.pairs(table(**changes)) == []


def test_robust_numbers_need_the_same_attack_and_budget() -> None:
    assert not [pair for pair in published.pairs(table()) if pair.published.metric == "robust"]
