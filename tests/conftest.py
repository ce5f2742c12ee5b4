"""Shared test settings: one thread per process, no environment of the caller, no network."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
for _name in list(os.environ):
    if _name.startswith("APD_BENCH_") and not _name.startswith("APD_BENCH_TEST_"):
        del os.environ[_name]
