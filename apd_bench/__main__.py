"""`python -m apd_bench` is the same as `apd-bench`."""

from apd_bench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
