"""Two cells are the same exactly when nothing that can change the number differs."""

import subprocess
import sys
from pathlib import Path

import pytest

from apd_bench.core.identity import canonical, derive_seed, digest
from apd_bench.core.specs import ThreatModel


def test_what_is_the_same_what_is_not_and_what_has_no_identity():
    assert digest({"eps": 4 / 255, "steps": 10}) == digest({"steps": 10.0, "eps": 0.01568627450980392})
    assert digest({"eps": 4 / 255}) != digest({"eps": 4.0001 / 255})
    assert digest([1, 2]) != digest([2, 1])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"x", "y"}) == digest({"y", "x"})
    assert len({digest(value) for value in (None, True, 1, "1", "True", [1], {"1": 1})}) == 7
    assert canonical([float("inf"), float("nan")]) == ["inf", "nan"]
    with pytest.raises(TypeError, match="a path"):
        canonical({"root": Path("/data")})
    with pytest.raises(TypeError, match="object"):
        canonical(object())


def test_digests_are_the_same_in_another_process_and_derived_seeds_differ_by_purpose():
    code = (
        "from apd_bench.core.identity import digest\nfrom apd_bench.core.specs import ThreatModel\n"
        "print(digest([ThreatModel(eps=2/255), {'z', 'a'}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest([ThreatModel(eps=2 / 255), {"z", "a"}])
    seeds = {derive_seed(1, "init"), derive_seed(1, "order"), derive_seed(2, "init"), derive_seed(0, "init")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
