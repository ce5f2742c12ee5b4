"""`apd-bench bench startup`: how fast the command answers."""

from __future__ import annotations

import argparse

from apd_bench.cli.bench_output import add_output, check, finish


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the part."""
    add_output(parser, "one repeat", repeats=5)
    parser.set_defaults(repeats=None)


def execute(args: argparse.Namespace) -> int:
    """Prints the table."""
    check(args, "repeats")
    from apd_bench.bench.startup import startup_rows

    return finish(args, "startup", startup_rows(args.repeats or (1 if args.quick else 5)))
