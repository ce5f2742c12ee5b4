"""Expected counts accept what they were made from, and turn red for whatever moves beyond tolerance."""

import json

import numpy as np
import pytest
from synthetic import cell, fill, method, outcomes, record

from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.records import regression
from apd_bench.records.regression import Counts
from apd_bench.records.store import Store

CLEAN = [1] * 30 + [0] * 10


def measured(path, robust=10, clean=30, losses=None):
    """Two attacks on one fit: `clean` and `robust` of 40 samples are right."""
    hits = [1] * clean + [0] * (40 - clean)
    items = []
    for attack in ("pgd", "cw"):
        spec = cell(attack=attack)
        items.append((record(spec), outcomes(hits, [1] * robust + [0] * (40 - robust))))
    store = Store(fill(path, items))
    if losses is not None:
        folder = store.fit_path(items[0][0].cell.fit.id)
        folder.mkdir(parents=True)
        history = [{"epoch": 0, "lr": 0.1, "loss": 9.0}, {"epoch": 1, "lr": 0.1, "gradient_norm": 3.0, **losses}]
        (folder / "card.json").write_text(json.dumps({"history": history}))
    return regression.measure(store)


def test_expectations_accept_what_they_were_made_from_and_repeat_their_file(tmp_path):
    found = measured(tmp_path / "a", losses={"loss": 2.0})
    regression.save_expected(tmp_path / "ci.json", "ci", found)
    expected = regression.load_expected(tmp_path / "ci.json")
    assert regression.compare(expected, found) == []
    assert expected["fit tiny-clean apd food/all 16-shot seed 1"]["loss"].value == 2.0
    found = measured(tmp_path / "a")
    for name in ("one.json", "two.json"):
        regression.save_expected(tmp_path / name, "ci", found)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert np.isfinite([value for values in found.places.values() for value in values.values()]).all()


def test_one_sample_may_move_but_not_three(tmp_path):
    regression.save_expected(tmp_path / "ci.json", "ci", measured(tmp_path / "a"))
    expected = regression.load_expected(tmp_path / "ci.json")
    assert regression.compare(expected, measured(tmp_path / "b", robust=11)) == []
    moved = regression.compare(expected, measured(tmp_path / "c", robust=13))
    assert {item.quantity for item in moved} == {"robust"}
    assert {item.where.split()[0] for item in moved} == {"cell", "total"}


def test_a_drift_of_every_cell_is_seen_in_the_totals(tmp_path):
    def many(path, robust):
        items = [
            (record(cell(method_spec=method(f"m{index}"))), outcomes(CLEAN, [1] * robust + [0] * (40 - robust)))
            for index in range(10)
        ]
        return regression.measure(Store(fill(path, items)))

    regression.save_expected(tmp_path / "ci.json", "ci", many(tmp_path / "a", 10))
    moved = regression.compare(regression.load_expected(tmp_path / "ci.json"), many(tmp_path / "b", 11))
    assert [item.where for item in moved] == ["total pgd, all methods"]


def test_losses_are_compared_and_gradient_norms_are_not(tmp_path):
    regression.save_expected(tmp_path / "ci.json", "ci", measured(tmp_path / "a", losses={"loss": 2.0}))
    expected = regression.load_expected(tmp_path / "ci.json")
    assert regression.compare(expected, measured(tmp_path / "b", losses={"loss": 2.02})) == []
    (moved,) = regression.compare(expected, measured(tmp_path / "c", losses={"loss": 2.2}))
    assert moved.text == ("fit tiny-clean apd food/all 16-shot seed 1", "loss", "2 ± 0.04", "2.2")


def test_missing_and_unexpected_cells_are_differences(tmp_path):
    found = measured(tmp_path / "a")
    regression.save_expected(tmp_path / "ci.json", "ci", found)
    expected = regression.load_expected(tmp_path / "ci.json")
    fewer = Counts({place: values for place, values in found.places.items() if "cw" not in place})
    assert all(item.measured is None for item in regression.compare(expected, fewer))
    assert all(item.expected is None for item in regression.compare({}, found))
    assert len(regression.compare({}, found)) == sum(len(values) for values in found.places.values())


def test_failed_cells_nan_and_absent_expectations_are_reported(tmp_path):
    path = fill(tmp_path / "r", [(record(cell(), status="error", error={"message": "no weights"}), None)])
    found = regression.measure(Store(path))
    assert found.places == {}
    assert "no weights" in found.failures[0]
    wanted = {"fit": {"loss": regression.Expected(1.0, 0.5)}}
    assert regression.compare(wanted, regression.Counts({"fit": {"loss": float("nan")}}))
    with pytest.raises(MissingPrerequisite, match="no expected values"):
        regression.load_expected(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"schema": 1}')
    with pytest.raises(CorruptFile, match="cannot be read"):
        regression.load_expected(tmp_path / "bad.json")
