"""The contract of a method, held by every registry entry."""

import pytest

from apd_bench.methods.catalog import builtin
from apd_bench.training.contract import CHECKS, check

ENTRIES = list(builtin())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_registered_method_keeps_the_contract(entry, backbone):
    results = check(entry, backbone=backbone)
    assert [f"{result.name}: {result.detail}" for result in results if not result.passed] == []
    assert len(results) == (len(CHECKS) if entry.name != "zero_shot" else 3)
