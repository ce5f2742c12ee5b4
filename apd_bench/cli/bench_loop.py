"""`apd-bench bench loop`: the attack loop beside the bare passes that it cannot do without."""

from __future__ import annotations

import argparse

from apd_bench.cli.bench_output import add_output, check, finish
from apd_bench.cli.console import err

FULL, QUICK = ("tiny-clean", "ViT-B-32-quickgelu/random", "ViT-B-16-quickgelu/random"), ("tiny-clean",)
STEPS = {"tiny-clean": 10, "tiny-robust": 10}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the part."""
    parser.add_argument("--backbone", nargs="+", metavar="NAME", help=f"default: {', '.join(FULL)}")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="samples, all of which stand (default: 64)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps (default: 10; 1 of a large model)")
    add_output(parser, "only the embedded model", repeats=5, device=True)


def execute(args: argparse.Namespace) -> int:
    """Prints the table."""
    check(args, "batch", "steps", "repeats")
    from apd_bench.backbones.load import load
    from apd_bench.bench.loop import loop_row
    from apd_bench.bench.rows import Row
    from apd_bench.registry import BACKBONES

    names = [BACKBONES.canonical(name) for name in args.backbone or (QUICK if args.quick else FULL)]
    rows: list[Row] = []
    for name in names:
        err(f"measuring {name}")
        backbone, steps = load(BACKBONES.get(name), args.device), args.steps or STEPS.get(name, 1)
        rows.append(loop_row(backbone, batch=args.batch, steps=steps, repeats=args.repeats))
    return finish(args, "loop", rows, args.device)
