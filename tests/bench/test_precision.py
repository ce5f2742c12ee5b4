"""The precision study counts changed verdicts both ways, and its table sums them up."""

import numpy as np
import pytest

from apd_bench.bench.precision import _change, markdown, row
from apd_bench.evaluation import CellResult
from apd_bench.records import Outcomes


def result(broken, seconds, **effective):
    count, hit = len(broken), np.asarray([sign == "x" for sign in broken])
    outcomes = Outcomes(sample_id=[str(place) for place in range(count)], label=np.zeros(count),
                        clean_prediction=np.zeros(count), adversarial_prediction=hit, broken=hit)  # fmt: skip
    metrics = {"clean_accuracy": 1.0, "robust_accuracy": 1 - hit.mean()}
    return CellResult(metrics=metrics, outcomes=outcomes, diagnostics={}, suspect=[],
                      timing={"attack_seconds": seconds}, effective=effective)  # fmt: skip


def test_changes_are_counted_in_both_directions():
    item = _change("b", "d", 4 / 255, "pgd", result("xx..", 2.0), result("x.xx", 1.0, attacked_again=3))
    assert (item.changed, item.full_alone, item.short_alone, item.again) == (3, 1, 2, 3)
    assert (item.full, item.short) == (0.5, 0.25)
    same = _change("b", "e", 4 / 255, "cw", result("x...", 2.0), result("x...", 4.0))
    table = markdown([item, same])
    assert "Together: 3 of 8 verdicts changed (37.50 %)." in table
    assert "| b | d | 4/255 | pgd | 4 | 100.0 | 50.0 | 25.0 | 3 | 1 | 2 | 3 | 2.0 / 1.0 |" in table
    summed = row([item, same])
    assert summed.facts == {"verdicts changed": 3, "attacked again": 3, "robust accuracy, %": "62.5 / 50.0"}
    assert summed.ratio == pytest.approx(0.8)
