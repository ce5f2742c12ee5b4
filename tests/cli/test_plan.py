"""`apd-bench plan`: cells, what of data and weights is missing here, what it would cost; large plans fit a terminal."""

import json
import sys
from dataclasses import replace

import pytest

from apd_bench.cli import main
from apd_bench.cli.plan import rows_of, summary, whole
from apd_bench.core.options import RunOptions
from apd_bench.core.specs import AttackSpec
from apd_bench.runner.estimate import passes_of, passes_per_sample, samples_of
from apd_bench.runner.plan import Impossible, Plan, plan
from apd_bench.runner.selection import resolve
from apd_bench.suites import load_suite

ASKED = ("embedded-untuned", "--methods", "advtp,apd", "--seeds", "1-3", "--attacks", "pgd")


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APD_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("APD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_a_plan_of_a_paper_says_what_is_missing_here(capsys):
    assert main(["plan", "fap-b2n", "--datasets", "dtd,eurosat", "--seeds", "1"]) == 0
    said = capsys.readouterr()
    assert said.out.count("dtd/new") == 5 and said.out.count("eurosat/base") == 5
    assert "missing data: dtd: DTD is not on this machine: apd-bench datasets prepare dtd" in said.err
    assert "missing weights: ViT-B-32-quickgelu/openai" in said.err
    assert "forward and" in said.err and "--calibrate" in said.err


def test_the_data_option_counts_for_a_plan_too(bare, capsys):
    (bare / "elsewhere/fgvc_aircraft/images").mkdir(parents=True)
    words = ["plan", "fap-cross", "--datasets", "fgvc_aircraft", "--methods", "fap", "--json"]
    assert main(words) == 0
    assert set(json.loads(capsys.readouterr().out)["missing_data"]) == {"fgvc_aircraft", "imagenet"}
    assert main([*words, "--data", str(bare / "elsewhere")]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert "not on this machine" in plain["missing_data"]["imagenet"]
    assert "variants.txt is missing" in plain["missing_data"]["fgvc_aircraft"]
    assert set(plain["missing_weights"]) == {"ViT-B-32-quickgelu/openai"}


def test_two_suites_in_one_command_are_refused(capsys):
    assert main(["plan", "audit", "--suite", "apd"]) == 2
    assert "Two suites are named: 'audit' and --suite apd" in capsys.readouterr().err
    assert main(["plan", "fap-crss"]) == 2
    assert "fap-cross" in capsys.readouterr().err


def test_an_ensemble_costs_the_sum_of_its_members():
    assert passes_per_sample(AttackSpec(name="autoattack")) == (7900.0, 1900.0)
    assert passes_per_sample(AttackSpec(name="autoattack.ce-dlr")) == (200.0, 200.0)
    assert passes_per_sample(AttackSpec(name="worst")) == (452.0, 450.0)
    assert passes_per_sample(AttackSpec(name="worst.fast")) == (182.0, 180.0)
    assert passes_per_sample(AttackSpec(name="pgd-t")) == (182.0, 180.0)
    assert passes_per_sample(AttackSpec(name="autoattack.square")) == (5000.0, 0.0)
    assert passes_per_sample(AttackSpec(name="noise", options={"draws": 5})) == (6.0, 0.0)
    assert passes_per_sample(AttackSpec(name="ddn", options={"steps": 10})) == (42.0, 29.0)
    assert passes_per_sample(AttackSpec(name="cw-l2", options={"steps": 10})) == (82.0, 69.0)
    alone = AttackSpec(name="autoattack", options={"members": ("apgd-t",), "targets": 4})
    assert passes_per_sample(alone) == (400.0, 400.0)


def test_half_of_the_classes_cost_half():
    chosen = RunOptions(datasets=("dtd",), seeds=(1,), methods=("fap",), no_reference=True)
    halves = plan(resolve(load_suite("fap-b2n"), chosen)).cells
    (whole,) = plan(resolve(load_suite("fap-fewshot"), replace(chosen, shots=(16,)))).cells
    assert sum(samples_of(cell) for cell in halves) == samples_of(whole) == 1692
    assert 2 * passes_of(halves[0].fit)[0] == passes_of(whole.fit)[0]
    assert passes_of(halves[0])[0] < passes_of(whole)[0]


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
