"""Tests, and the scripts that measure speed (`python -m tests.benchmarks`)."""
