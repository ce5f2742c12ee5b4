"""`apd-bench bench PART`: our paths and the field's usual ones, timed side by side on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from apd_bench.cli import bench_data
from apd_bench.errors import EXIT_DONE, UsageError

EXAMPLES = """examples:
  apd-bench bench train                            one training step on ViT-B/32 shapes, 100 classes, batch 4 and 32
  apd-bench bench train --classes 1000 --batch 4   the class list of ImageNet
  apd-bench bench train --quick                    a small model, seconds instead of minutes
  apd-bench bench data                             decoding against the image cache, on JPEG files made for it
  apd-bench bench data oxford_pets --limit 1000    on a set of yours
"""
FULL, QUICK = "ViT-B-32-quickgelu/random", "tiny-clean"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.epilog = EXAMPLES
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True, parser_class=type(parser))
    train = parts.add_parser("train", help="one training step, ours and the usual one")
    train.add_argument("--backbone", metavar="NAME", help=f"default: {FULL} (random weights)")
    train.add_argument("--classes", type=int, default=100, metavar="N", help="default: 100")
    train.add_argument("--batch", nargs="+", default=["4", "32"], metavar="N", help="default: 4 32")
    train.add_argument("--repeats", type=int, default=3, metavar="N", help="timed repeats of each step (default: 3)")
    train.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1")
    train.add_argument("--quick", action="store_true", help=f"on the embedded model {QUICK}")
    train.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    bench_data.add_arguments(parts.add_parser("data", help="decoding, and reading from the image cache"))


def execute(args: argparse.Namespace) -> int:
    """Prints the table of one part."""
    return bench_data.execute(args) if args.part == "data" else _train(args)


def _train(args: argparse.Namespace) -> int:
    sizes = _sizes(args.batch)
    if args.classes < 2 or args.repeats < 1:
        raise UsageError("At least 2 classes and 1 repeat are needed.")
    from apd_bench.backbones.load import load
    from apd_bench.bench.train import compare, markdown
    from apd_bench.registry import BACKBONES

    name = args.backbone or (QUICK if args.quick else FULL)
    backbone = load(BACKBONES.get(name), args.device)
    rows = [compare(backbone, size, classes=args.classes, repeats=args.repeats) for size in sizes]
    sys.stdout.write(markdown(rows) + "\n")
    if args.json is not None:
        table = [dataclasses.asdict(row) | {"ratio": row.ratio} for row in rows]
        args.json.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return EXIT_DONE


def _sizes(words: list[str]) -> list[int]:
    try:
        sizes = [int(part) for word in words for part in word.split(",") if part]
    except ValueError as error:
        raise UsageError(f"--batch takes whole numbers: {' '.join(words)}.") from error
    if not sizes or min(sizes) < 1:
        raise UsageError("--batch takes numbers of 1 or more.")
    return sizes
