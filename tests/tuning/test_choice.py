"""The best of k tries against brute force, the choice by a rule, and the table of tries."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from apd_bench.core.errors import CorruptFile
from apd_bench.tuning.choice import RULES, expected_best, tuned
from apd_bench.tuning.trials import Trial, read_trials, write_trials

ROOT = Path(__file__).resolve().parents[2]
ONE = Trial(
    trial=0, method="apd", backbone="tiny-clean", dataset="food", shots=16, seed=1, attack="worst.fast", eps="3/255",
    split="val", n=50, clean=0.8, robust=0.2, seconds=1.0, fit="f", prompts="p", cell="c", configuration="{}",
)  # fmt: skip


@pytest.mark.parametrize("scores", [[3.0], [1.0, 2.0, 4.0, 8.0], [5.0, 1.0, 5.0, 2.0, 5.0], [0.0] * 4])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_best_of_k_tries_is_that_of_all_draws_of_k(scores, k):
    best = [max(draw) for draw in product(scores, repeat=k)]
    found = expected_best(scores, k)
    assert found.expected == pytest.approx(np.mean(best))
    assert (found.low, found.high) == tuple(np.quantile(best, [0.05, 0.95], method="inverted_cdf"))


def test_the_best_of_no_tries_has_no_value():
    for scores, k in (([], 1), ([1.0], 0)):
        with pytest.raises(ValueError, match="no tries"):
            expected_best(scores, k)


def tries(method, *pairs, dataset="food"):
    """Tries 0, 1, ... of a method with these clean and robust accuracies."""
    return [replace(ONE, method=method, trial=number, dataset=dataset, clean=clean, robust=robust,
                    cell=f"{method}-{dataset}-{number}") for number, (clean, robust) in enumerate(pairs)]  # fmt: skip


def test_the_best_by_each_rule_of_the_tries_that_all_finished_the_first_of_equals():
    lines = tries("apd", (0.9, 0.1), (0.5, 0.5), (0.5, 0.5), (0.8, 0.3))
    best = {rule: tuned(lines, ["apd"], rule)[0].best for rule in RULES}
    assert best == {"harmonic": 1, "mean": 3, "robust": 1, "clean": 0}
    (one,) = tuned(lines, ["apd"], "harmonic")
    assert (one.scores[0], one.scores[1]) == (pytest.approx(18.0), pytest.approx(50.0))
    lines = [*tries("apd", (0.5, 0.5), (0.6, 0.6), (0.9, 0.9)), *tries("apd", (0.5, 0.5), (0.6, 0.6), dataset="places")]
    lines += [*tries("fap", (0.5, 0.5), (0.4, 0.4)), *tries("fap", (0.5, 0.5), dataset="places")]
    assert [set(item.scores) for item in tuned(lines, ["apd", "fap"], "harmonic")] == [{0}, {0}]
    assert [set(item.scores) for item in tuned(lines[:5], ["apd"], "harmonic")] == [{0, 1}]
    assert [set(item.scores) for item in tuned(lines, ["apd", "coop"], "harmonic")] == [set(), set()]


def test_the_table_comes_back_as_it_was_and_in_order(tmp_path):
    lines = [
        *tries("fap", (0.5, 0.25), (1.0, 0.0)),
        replace(ONE, configuration='{"training.lr": 0.1, "learner.init": "a b"}'),
    ]
    write_trials(tmp_path / "t.csv", lines)
    found = read_trials(tmp_path / "t.csv")
    assert set(found.values()) == set(lines)
    assert [one.trial for one in found.values()] == [0, 0, 1]
    assert read_trials(tmp_path / "none.csv") == {}


@pytest.mark.parametrize(
    ("old", "new"), [("0.8", "x"), ("0.8", "1.8"), ("0.8", "nan"), ("val", "test"), (",{}", ""), ("trial,", "try,")]
)
def test_a_wrong_table_is_refused(tmp_path, old, new):
    write_trials(tmp_path / "t.csv", [ONE])
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().replace(old, new))
    with pytest.raises(CorruptFile, match=r"t\.csv"):
        read_trials(tmp_path / "t.csv")


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/*/tuning/trials.csv")), ids=str)
def test_the_stored_tries_are_equally_many_for_every_method(path):
    counts = {}
    for one in read_trials(path).values():
        assert one.split in ("val", "held_out")
        group = counts.setdefault((one.backbone, one.attack, one.eps, str(one.shots)), {})
        group.setdefault(one.method, set()).add((one.trial, *one.place))
    assert counts
    for group in counts.values():
        assert len({frozenset(own) for own in group.values()}) == 1
