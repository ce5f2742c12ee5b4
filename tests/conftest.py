"""Shared test settings: one thread per process, no environment of the caller, no network."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
for _name in [name for name in os.environ if name.startswith("APD_BENCH_") and name != "APD_BENCH_TEST_FULL"]:
    del os.environ[_name]
