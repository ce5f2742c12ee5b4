"""Is a GPU right, and how fast: the checks of `python -m tests.benchmarks.cuda`."""
