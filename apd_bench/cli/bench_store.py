"""`apd-bench bench store`: planning and ranking by the number of records."""

from __future__ import annotations

import argparse

from apd_bench.cli.bench_output import add_output, check, finish, whole_numbers

FULL, QUICK = (1000, 5000, 20000, 100000), (500, 2000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the part."""
    sizes = ", ".join(f"{size:,}" for size in FULL)
    parser.add_argument("--records", nargs="+", metavar="N", help=f"numbers of records (default: {sizes})")
    add_output(parser, f"up to {QUICK[-1]:,} records, one repeat")
    parser.set_defaults(repeats=None)


def execute(args: argparse.Namespace) -> int:
    """Prints the table."""
    check(args, "repeats")
    sizes = whole_numbers("--records", args.records) if args.records else QUICK if args.quick else FULL
    from apd_bench.bench.stores import store_rows

    return finish(args, "store", store_rows(sorted(sizes), args.repeats or (1 if args.quick else 3)))
