"""A large plan fits a terminal, and nothing of it is lost: counts add up, every state is named, --all lists it."""

import sys
from collections.abc import Callable

import pytest

from apd_bench.cli.plan import rows_of, summary, whole
from apd_bench.core.options import RunOptions
from apd_bench.runner.plan import Impossible, Plan, plan
from apd_bench.runner.selection import resolve
from apd_bench.suites import load_suite

Cli = Callable[..., object]
ASKED = ("embedded-untuned", "--methods", "advtp,apd", "--seeds", "1-3", "--attacks", "pgd")


def grid(**lists):
    return plan(resolve(load_suite("embedded"), RunOptions(attacks=("pgd",), **lists)))


def test_counts_are_by_method_and_set_and_every_state_has_its_first_cells():
    cells = grid(methods=("apd",), datasets=("fashion", "food"))
    first, last = cells.cells[0], cells.cells[-1]
    poor = Plan(cells.suite, cells.cells[:-1], (Impossible(last, "it cannot be"),))
    rows = rows_of(poor, {first.id: "success"}, {cell.id for cell in poor.cells[1:]})
    lines = summary(rows, 200).splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["done", "of", "fashion", "food"],
        ["zero_shot", "1/1", "0/1"],
        ["apd", "0/1", "-"],
    ]
    assert "success: 1" in lines and "to do: 2" in lines and "impossible: 1" in lines
    assert f"  {last.id}  {last.label}: it cannot be" in lines
    assert len(whole(rows).splitlines()) == 1 + 4


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_of_the_summary_is_wider_than_the_terminal(width):
    cells = grid(methods=("all",), datasets=("embedded",))
    rows = rows_of(cells, {}, {cell.id for cell in cells.cells})
    text = summary(rows, width)
    assert max(map(len, text.splitlines())) <= width
    assert f"to do: {len(rows)}, the first 3" in text
    names = {cell.fit.method.name for cell, *_ in rows}
    assert names <= {line.split()[0] for line in text.splitlines() if line.strip()}


def test_a_terminal_gets_the_summary_and_everything_else_the_whole_plan(cli, monkeypatch):
    piped = cli("plan", *ASKED)
    assert len(piped.out.splitlines()) == 1 + 6 * (1 + 2 * 3)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    short = cli("plan", *ASKED)
    assert "to do: 42, the first 3" in short.out and "plan --all lists every cell" in short.err
    assert cli("plan", *ASKED, "--all").out == piped.out
    assert len(cli("plan", *ASKED, "--datasets", "food").out.splitlines()) == 1 + 7  # a small plan is shown whole
