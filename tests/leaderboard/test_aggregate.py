"""Tables compare only what may be compared, and the worst case is taken per sample."""

from dataclasses import replace

import pytest
from synthetic import BACKBONE, cell, dataset, grid, method, outcomes, record, tables_of

from apd_bench.leaderboard.aggregate import tables, unique
from apd_bench.leaderboard.listings import listings
from apd_bench.leaderboard.tidy import measurement
from apd_bench.records.outcomes import Outcomes

SHARES = {"zero_shot": {"clean": 0.6, "pgd": 0.1, "cw": 0.2}, "apd": {"clean": 0.6, "pgd": 0.3, "cw": 0.3}}


@pytest.mark.parametrize(("first", "column"), [("pgd", "pgd"), ("worst", "worst (suite)")])
def test_worst_is_the_intersection_over_attacks_on_the_same_samples(first, column):
    clean = [1, 1, 1, 0]
    items = [
        (record(cell(attack=first)), outcomes(clean, [1, 1, 0, 0])),
        (record(cell(attack="cw")), outcomes(clean, [0, 1, 1, 0])),
    ]
    estimates = tables_of(items)[0].ranked[0].estimates
    assert {name: estimates[name].value for name in estimates} == {
        "clean": 0.75, column: 0.5, "cw": 0.5, "worst": 0.25,
    }  # fmt: skip


def test_worst_aligns_samples_by_id_and_a_misclassified_sample_is_never_robust():
    first, second = outcomes([1, 1], [1, 0]), outcomes([1, 1], [0, 1])
    turned = Outcomes(**{name: column[::-1] for name, column in second.columns()})
    row = tables_of([(record(cell(attack="pgd")), first), (record(cell(attack="cw")), turned)])[0].ranked[0]
    assert row.estimates["worst"].value == 0.0
    lucky = outcomes([0, 1], [1, 1])  # the attack "repaired" the first sample
    assert tables_of([(record(cell()), lucky)])[0].ranked[0].estimates["pgd"].value == 0.5


def test_the_gain_is_the_paired_difference_to_zero_shot_with_its_interval():
    table = tables_of(grid({"apd": {"clean": 0.9, "pgd": 0.6}, "zero_shot": {"clean": 0.9, "pgd": 0.2}}))[0]
    rows = {row.method: row for row in table.ranked}
    gain = rows["apd"].gain
    assert gain and gain.low and gain.high and rows["zero_shot"].gain is None
    worst = [rows[name].estimates["worst"].value for name in ("apd", "zero_shot")]
    assert gain.value == pytest.approx(worst[0] - worst[1])
    assert 0 < gain.low < gain.value < gain.high
    assert (rows["apd"].ranks, rows["zero_shot"].ranks) == ((1, 1), (2, 2))


@pytest.mark.parametrize(("recipe", "family", "reconstruction"), [
    ({"needs": ("text_tokens",)}, "clean, text", False),
    ({"needs": ("visual_tokens",), "inner_attack": {"steps": 2}}, "adversarial, image", False),
    ({"needs": ("text_tokens", "visual_tokens"), "reconstruction": True}, "clean, both", True),
    ({"trains": False}, "hand-made", False),
])  # fmt: skip
def test_families_and_reconstructions(recipe, family, reconstruction):
    (row,) = tables_of([(record(cell(method_spec=method("mine", **recipe))), outcomes([1, 1], [1, 0]))])[0].rows
    assert (row.family, row.reconstruction) == (family, reconstruction)


def test_incomplete_rows_have_no_mean_and_no_rank_and_failed_cells_say_why():
    items = grid(SHARES)
    gone = next(index for index, (one, _) in enumerate(items) if one.cell.fit.method.name == "apd")
    table = tables_of(items[:gone] + items[gone + 1 :])[0]
    (row,) = table.incomplete
    assert (row.method, row.done, row.planned, row.rank, row.estimates) == ("apd", 11, 12, None, {})
    assert row.missing == {items[gone][0].cell.dataset.name: 1}
    assert [row.method for row in table.ranked] == ["zero_shot"]
    items = grid({"apd": SHARES["apd"]}, seeds=(1,))
    failed = replace(items[0][0], status="error", error={"message": "out of memory"}, outcomes=None)
    (row,) = tables_of([(failed, None), *items[1:]])[0].incomplete
    assert row.failed == {"out of memory": 1}
    assert row.done == 3


@pytest.mark.parametrize("change", [
    {"eps": 4 / 255},
    {"limit": 20},
    {"precision": "bf16"},
    {"backbone": replace(BACKBONE, name="tiny-robust", training="robust")},
    {"backbone": replace(BACKBONE, digest="other")},
    {"shots": 4},
    {"fit": {"resize": "squash"}},
    {"split": "val"},
    {"split": "held_out"},
], ids=str)  # fmt: skip
def test_numbers_of_different_protocols_never_share_a_table(change):
    other = record(cell(**change))
    made = tables_of([(record(cell()), outcomes([1, 1], [1, 0])), (other, outcomes([1, 1], [1, 0]))])
    assert [[row.done for row in table.rows] for table in made] == [[1], [1]]


def test_zero_shot_stands_in_every_table_that_differs_in_shots():
    items = grid({"apd": SHARES["apd"]}, shots=4) + grid(SHARES)
    made = tables_of(items)
    assert [(table.key.shots, sorted(row.method for row in table.rows)) for table in made] == [
        (16, ["apd", "zero_shot"]), (4, ["apd", "zero_shot"]),
    ]  # fmt: skip


def test_other_test_samples_make_a_row_incomparable():
    items = grid(SHARES, datasets=("food",), seeds=(1,))
    strange = record(cell(method_spec=method("odd"), data=dataset("food")))
    table = tables_of([*items, (strange, outcomes([1] * 40, [1] * 40, prefix="other"))])[0]
    (row,) = table.incomplete
    assert row.method == "odd"
    assert "other samples" in row.notes[0]


def test_two_recipes_of_one_method_are_two_rows_unless_they_differ_by_dataset_only():
    items = [
        (record(cell(method_spec=method("apd", training={"epochs": epochs}))), outcomes([1, 1], [1, 0]))
        for epochs in (2, 5)
    ]
    assert len({row.method for row in tables_of(items)[0].rows}) == 2
    recipes = {"food": method("apd", training={"epochs": 2}), "places": method("apd", training={"epochs": 5})}
    cells = [cell(method_spec=recipe, data=dataset(name)) for name, recipe in recipes.items()]
    (row,) = tables_of([(record(one), outcomes([1, 1], [1, 0])) for one in cells])[0].rows
    assert (row.method, row.done, row.complete) == ("apd", 2, True)


def test_minimal_norm_attacks_are_reported_as_distance_and_left_out_of_the_worst_case():
    far = record(cell(attack="cw-l2"), metrics={"median_distance": 0.5})
    items = [
        (record(cell(attack="pgd")), outcomes([1, 1], [1, 1])),
        (far, outcomes([1, 1], [0, 0], distance=[0.25, 0.75])),
    ]
    table = tables_of(items)[0]
    assert (table.attacks, table.distance_attacks) == (("pgd",), ("cw-l2",))
    assert table.rows[0].estimates["worst"].value == 1.0
    assert table.rows[0].distances == {"cw-l2": 0.5}


def test_the_same_cell_in_two_stores_counts_once_and_contradictions_are_named():
    one = measurement(record(cell()), outcomes([1, 1], [1, 0]))
    failed = measurement(record(cell(), status="error"), None)
    other = measurement(record(cell()), outcomes([1, 1], [1, 1]))
    assert unique([failed, one]) == ([one], [])
    kept, conflicts = unique([one, other])
    assert (kept, conflicts) == ([one], [one.id])
    assert tables([]) == []


def test_suspect_cells_and_collapsed_fits_are_counted():
    short = {"fewer_shots": {"classes": 2, "fewest": 3}}
    marked = record(cell(), suspect=("zero gradients",), fit={"collapsed": True, "carried_from": "RN50", **short})
    row = tables_of([(marked, outcomes([1], [1]))])[0].rows[0]
    assert (row.suspect, row.collapsed) == ({"zero gradients": 1}, 1)
    fewer = "1 fits had classes with fewer training images than shots (the fewest: 3)"
    assert row.notes == (fewer, "its prompts were made for another backbone, RN50")


def test_mixed_attack_versions_and_prompts_that_were_trained_again_are_noted():
    new = cell(seed=2)
    new = replace(new, attack=replace(new.attack, version=2))
    items = [(record(cell(seed=1)), outcomes([1], [1])), (record(new), outcomes([1], [1]))]
    assert "versions 1, 2" in tables_of(items)[0].notes[0]

    def notes(second):
        cells = {name: cell(attack=name) for name in ("pgd", "cw")}
        digests = {"pgd": "a", "cw": second}
        items = [(record(cells[name], fit={"digest": digests[name]}), outcomes([1], [1])) for name in cells]
        return tables_of(items)[0].rows[0].notes

    assert notes("a") == ()
    (note,) = notes("b")
    assert "cells of 1 fits were measured with different prompts" in note


def test_a_further_attack_lowers_the_worst_case_and_makes_no_gap():
    items = grid({"apd": SHARES["apd"], "zero_shot": SHARES["zero_shot"]}, datasets=("food",), seeds=(1,))
    spec = items[0][0].cell
    better = replace(spec, attack=replace(spec.attack, name="fab"))
    items.append((record(better), outcomes([1] * 40, [0] * 40)))
    for declared in ((), ("pgd", "cw")):
        (table,) = tables_of(items, declared)
        assert table.attacks == ("pgd", "cw")
        assert not table.incomplete
        row = next(row for row in table.rows if row.method == "apd")
        assert row.estimates["worst"].value == 0.0
        assert row.estimates["pgd"].value > 0.0
        assert "further attack fab" in row.notes[0]


def test_base_new_and_cross_dataset_cells_have_tables_of_their_own():
    base = {"task": "base_to_new", "fit": {"classes": "base"}}
    items = [
        (record(cell()), outcomes([1], [1])),
        (record(cell(**base, classes="base")), outcomes([1], [1])),
        (record(cell(**base, classes="new")), outcomes([1], [0])),
        (record(cell(task="cross_dataset", source=dataset("objects"))), outcomes([1], [1])),
    ]
    made = tables_of(items)
    assert [(table.key.task, table.key.classes, table.key.trained_on) for table in made] == [
        ("few_shot", "all", ""), ("base_to_new", "base", ""), ("base_to_new", "new", ""),
        ("cross_dataset", "all", "objects"),
    ]  # fmt: skip


def test_three_budgets_have_a_mean_over_them_and_two_have_none():
    shares = {"apd": {"clean": 0.9, "pgd": 0.5}, "coop": {"clean": 0.9, "pgd": 0.2}}
    budgets = [tables_of(grid(shares, eps=eps / 255)) for eps in (1, 2, 4)]
    (one,) = listings([table for tables in budgets for table in tables])
    assert one.header == ("method", "1/255", "2/255", "4/255", "mean")
    assert [line[0] for line in one.body] == ["apd", "coop"]
    for line in one.body:
        assert float(line[4]) == pytest.approx(sum(map(float, line[1:4])) / 3, abs=0.1)
    assert listings([*budgets[0], *budgets[1]]) == []
