"""`apd-bench bench precision`: how many verdicts change when the attack computes in bf16."""

from __future__ import annotations

import argparse
import dataclasses

from apd_bench.cli.bench_output import add_output, check, listed, write
from apd_bench.errors import EXIT_DONE
from apd_bench.specs import parse_eps

BUDGETS = {"tiny-clean": "2/255", "tiny-robust": "4/255"}  # where about half of the accuracy is lost
DATASETS = ("animals", "food", "vehicles")
FULL, QUICK = ("tiny-clean", "tiny-robust"), ("tiny-clean",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the part."""
    parser.add_argument("--models", nargs="+", metavar="LIST", help=f"default: {', '.join(FULL)}")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), metavar="LIST",
                        help=f"default: {', '.join(DATASETS)}")  # fmt: skip
    parser.add_argument("--attacks", nargs="+", default=["pgd", "cw"], metavar="LIST", help="default: pgd, cw")
    parser.add_argument("--eps", metavar="E", help="default: 2/255 (tiny-clean), 4/255")
    parser.add_argument("--limit", type=int, metavar="N", help="test samples of each set (default: 100)")
    add_output(parser, "10 samples of each set, one model", repeats=None, device=True)


def execute(args: argparse.Namespace) -> int:
    """Prints the table."""
    check(args, "limit")
    from apd_bench.attacks.parse import parse_attack
    from apd_bench.backbones.load import load
    from apd_bench.bench.precision import changes, markdown, row
    from apd_bench.bench.rows import document
    from apd_bench.registry import BACKBONES, DATASETS

    names = [BACKBONES.canonical(name) for name in listed(args, "models") or (QUICK if args.quick else FULL)]
    datasets = [DATASETS.canonical(name) for name in listed(args, "datasets")]
    attacks = [parse_attack(text).label for text in listed(args, "attacks")]
    limit = args.limit or (10 if args.quick else 100)
    found = []
    for name in names:
        eps = parse_eps(args.eps or BUDGETS.get(name, "4/255"))
        found.append(changes(load(BACKBONES.get(name), args.device), datasets, attacks, eps, limit))
    flat = [item for items in found for item in items]
    data = document("precision", [row(items) for items in found], args.device)
    data["changes"] = [dataclasses.asdict(item) for item in flat]
    write(args, f"{data['machine']['machine']}\n\n{markdown(flat)}", data)
    return EXIT_DONE
