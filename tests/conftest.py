"""Shared test settings: one thread per process, no environment of the caller or of another test, no network."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from apd_bench.core.registry import REGISTRIES


def _settings():
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("APD_BENCH_") and not name.startswith(("APD_BENCH_TEST_", "APD_BENCH_CACHE"))
    }


# Where synthetic records, fakes and helpers lie that tests share; worker processes inherit the path.
sys.path[:0] = [str(Path(__file__).parent / room) for room in ("leaderboard", "records", "runner")]
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["APD_BENCH_CACHE"] = tempfile.mkdtemp(prefix="apd-bench-tests-")  # never the cache of whoever runs them
atexit.register(shutil.rmtree, os.environ["APD_BENCH_CACHE"], ignore_errors=True)
for _name in _settings():
    del os.environ[_name]


@pytest.fixture(autouse=True)
def environment_of_its_own():
    """What a verb sets for its process (as --data does) ends with the test, and so does what came from a file."""
    before = _settings()
    yield
    for name in _settings().keys() - before.keys():
        del os.environ[name]
    for registry in REGISTRIES:
        for name in list(registry.files):
            registry.unregister(name)
