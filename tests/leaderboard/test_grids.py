"""Leftovers of a store neither make other rows incomplete nor get lost."""

from synthetic import grid, tables_of

from apd_bench.leaderboard.curves import eps_families
from apd_bench.leaderboard.wording import heading


def shares(*methods):
    return {name: {"clean": 0.6, "pgd": 0.3, "cw": 0.2} for name in methods}


def made(items):
    return tables_of({one.id: (one, result) for one, result in items}.values())


def names(rows):
    return sorted(row.method for row in rows)


def test_a_dataset_of_a_few_methods_has_a_table_of_its_own():
    items = grid(shares("zero_shot", "apd", "advtp", "fap"), seeds=(1, 2))
    items += grid(shares("zero_shot", "apd"), datasets=("objects",), seeds=(1,))
    main, further = made(items)
    assert (main.datasets, names(main.ranked), main.incomplete) == (
        ("food", "places"), ["advtp", "apd", "fap", "zero_shot"], (),
    )  # fmt: skip
    assert (further.datasets, further.seeds, names(further.ranked)) == (("objects",), (1,), ["apd", "zero_shot"])
    assert heading(further) == f"{heading(main)}, further sets: objects"


def test_a_dataset_that_one_of_many_lacks_makes_it_incomplete_and_failed_cells_count_as_tried():
    items = grid(shares("zero_shot", "apd", "advtp", "fap"), seeds=(1,))
    kept = [item for item in items if (item[0].cell.fit.method.name, item[0].cell.dataset.name) != ("fap", "places")]
    (table,) = made(kept)
    assert (names(table.ranked), names(table.incomplete)) == (["advtp", "apd", "zero_shot"], ["fap"])
    assert table.incomplete[0].missing == {"places": 2}
    items = grid(shares("apd", "advtp"), seeds=(1,))
    failed = [
        (type(one)(id=one.id, cell=one.cell, status="error"), None)
        if (one.cell.fit.method.name, one.cell.dataset.name) == ("advtp", "places") else (one, result)
        for one, result in items
    ]  # fmt: skip
    (table,) = made(failed)
    assert (table.datasets, names(table.incomplete)) == (("food", "places"), ["advtp"])


def test_a_further_seed_or_a_method_without_training_elsewhere_makes_no_gap():
    items = grid(shares("apd", "advtp", "fap"), seeds=(1, 2)) + grid(shares("apd"), seeds=(3,))
    (table,) = made(items)
    assert (table.seeds, table.incomplete) == ((1, 2), ())
    (row,) = [row for row in table.rows if row.notes]
    assert (row.method, row.planned) == ("apd", 8)
    assert "seeds 3" in row.notes[0]
    items = grid(shares("apd"), datasets=("food",), seeds=(1,)) + grid(shares("zero_shot"))
    main, alone = made(items)
    assert (main.datasets, names(main.ranked)) == (("food",), ["apd", "zero_shot"])
    assert (alone.datasets, names(alone.ranked), alone.key.shots) == (("places",), ["zero_shot"], 0)


def test_curves_never_join_means_over_different_datasets():
    items = grid(shares("apd"), seeds=(1,)) + grid(shares("apd"), datasets=("food",), seeds=(1,), eps=4 / 255)
    assert [len(family) for family in eps_families(made(items))] == [1, 1]
