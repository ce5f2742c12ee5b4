"""`apd-bench bench loop`: the attack loop beside the bare passes that it cannot do without."""

from __future__ import annotations

import argparse

from apd_bench.cli.bench_output import add_output, at_least_one, finish

FULL, QUICK = ("tiny-clean", "ViT-B-32-quickgelu/random"), ("tiny-clean",)
STEPS = {"tiny-clean": 10, "tiny-robust": 10}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the part."""
    parser.add_argument("--backbone", nargs="+", metavar="NAME", help=f"default: {', '.join(FULL)}")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="samples, all of which stand (default: 64)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps (default: 10; 1 of a large model)")
    add_output(parser, "only the embedded model", repeats=5, device=True)


def execute(args: argparse.Namespace) -> int:
    """Prints the table."""
    at_least_one(args, "batch", "steps", "repeats")
    from apd_bench.backbones.load import load
    from apd_bench.bench.loop import loop_row
    from apd_bench.registry import BACKBONES

    names = [BACKBONES.canonical(name) for name in args.backbone or (QUICK if args.quick else FULL)]
    rows = [
        loop_row(load(BACKBONES.get(name), args.device), batch=args.batch, steps=args.steps or STEPS.get(name, 1),
                 repeats=args.repeats)
        for name in names
    ]  # fmt: skip
    return finish(args, "loop", rows, args.device)
