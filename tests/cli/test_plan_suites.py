"""`apd-bench plan SUITE`: cells, what of data and weights is missing on this machine, and what it would cost."""

import json
from dataclasses import replace

import pytest

from apd_bench.cli import main
from apd_bench.core.options import RunOptions
from apd_bench.core.specs import AttackSpec
from apd_bench.runner.estimate import passes_of, passes_per_sample, samples_of
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import resolve
from apd_bench.suites import load_suite


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
