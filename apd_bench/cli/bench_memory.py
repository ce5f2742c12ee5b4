"""`apd-bench bench memory`: the most memory that long class lists and AutoAttack's FAB hold."""

from __future__ import annotations

import argparse

from apd_bench.cli.bench_output import add_output, check, finish
from apd_bench.cli.console import err

FULL, QUICK = ("tiny-clean", "ViT-B-32-quickgelu/random"), ("tiny-clean",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the part."""
    parser.add_argument("--backbone", nargs="+", metavar="NAME", help=f"default: {', '.join(FULL)}")
    parser.add_argument("--classes", type=int, default=1000, metavar="N", help="default: 1000")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="images (default: 4)")
    add_output(parser, "only the embedded model", repeats=None, device=True)


def execute(args: argparse.Namespace) -> int:
    """Prints the table; FAB with a gradient for every class is measured on the embedded models alone."""
    check(args, "classes", "batch")
    from apd_bench.backbones.load import load
    from apd_bench.bench.thousand import memory_rows
    from apd_bench.registry import BACKBONES

    rows = []
    for name in (BACKBONES.canonical(item) for item in args.backbone or (QUICK if args.quick else FULL)):
        err(f"measuring {name}")
        backbone = load(BACKBONES.get(name), args.device)
        rows += memory_rows(
            backbone, classes=args.classes, batch=args.batch, fab_batch=args.batch, fab=name.startswith("tiny-")
        )
    return finish(args, "memory", rows, args.device)
