"""`apd-bench bench train`: one training step, ours and the usual one."""

from __future__ import annotations

import argparse
import dataclasses

from apd_bench.cli.bench_output import add_output, check, whole_numbers, write
from apd_bench.cli.console import err
from apd_bench.errors import EXIT_DONE, UsageError

FULL, QUICK = ("tiny-clean", "ViT-B-32-quickgelu/random", "ViT-B-16-quickgelu/random"), ("tiny-clean",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the part."""
    parser.add_argument("--backbone", nargs="+", metavar="NAME", help=f"default: {', '.join(FULL)}")
    parser.add_argument("--classes", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--batch", nargs="+", default=["4", "32"], metavar="N", help="default: 4 32")
    add_output(parser, f"on the embedded model {QUICK[0]}", device=True)


def execute(args: argparse.Namespace) -> int:
    """Prints the table."""
    sizes = whole_numbers("--batch", args.batch)
    check(args, "repeats")
    if args.classes < 2:
        raise UsageError("At least 2 classes are needed.")
    from apd_bench.backbones.load import load
    from apd_bench.bench.rows import document
    from apd_bench.bench.train import compare, markdown, row
    from apd_bench.registry import BACKBONES

    steps = []
    for name in (BACKBONES.canonical(item) for item in args.backbone or (QUICK if args.quick else FULL)):
        err(f"measuring {name}")
        backbone = load(BACKBONES.get(name), args.device)
        steps += [compare(backbone, size, classes=args.classes, repeats=args.repeats) for size in sizes]
    data = document("train", [*map(row, steps)], args.device)
    data["steps"] = [dataclasses.asdict(step) | {"ratio": step.ratio} for step in steps]
    write(args, markdown(steps), data)
    return EXIT_DONE
