"""Rows say what was measured: ratios by medians, both sides in turn, and nothing lost on the way to JSON."""

import json
import platform

import pytest

from apd_bench.bench.rows import Row, document, in_turn, machine, markdown, processor, row_of

ROW = Row(part="p", what="w", usual=(4.0, 6.0, 90.0), ours=(1.0, 2.0, 3.0), limit=(1.0, 1.0, 2.0), facts={"n": 7})


def test_ratio_is_of_medians_and_excess_of_neighbours():
    assert ROW.ratio == pytest.approx(3)
    assert ROW.excess == pytest.approx(0.5)
    assert Row(part="p", what="w", ours=(1.0,)).ratio is None


def test_sides_run_in_turn_after_one_run_that_does_not_count():
    order = []
    seconds = in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert "".join(order) == "ababab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_a_document_gives_the_rows_back():
    data = json.loads(json.dumps(document("p", [ROW])))
    assert row_of(data["rows"][0]) == ROW
    assert data["rows"][0]["ratio"] == pytest.approx(3)
    assert "CPU" in data["machine"]["machine"]


def test_the_machine_is_named_where_it_has_a_name(tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Best CPU 9\nprocessor\t: 1\nmodel name\t: Best CPU 9\n")
    assert processor(told) == "Best CPU 9"
    told.write_text("processor\t: 0\n")
    assert processor(told) == processor(tmp_path / "absent") == platform.processor()
    assert processor() in machine()["machine"]


def test_the_table_shows_medians_and_ranges():
    line = markdown([ROW]).splitlines()[-1]
    assert "| 6 s (4 to 90) | 2 s (1 to 3) | 3.0x |" in line
    assert "| +50.0 % | n 7 |" in line
