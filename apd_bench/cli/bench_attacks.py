"""`apd-bench bench attacks`: our attacks and the field's usual ones, side by side on the same samples."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apd_bench.bench.rows import machine
from apd_bench.cli import bench_output
from apd_bench.cli.console import err
from apd_bench.errors import EXIT_DONE, UsageError
from apd_bench.specs import format_eps, parse_eps

# The budgets at which about half of the zero-shot accuracy is lost, or most of it: where attacks can differ.
BUDGETS = {"tiny-clean": ("2/255", "3/255"), "tiny-robust": ("4/255",)}
OTHER_BUDGET = ("4/255",)
RANDOM = {"ViT-B-32": "ViT-B-32-quickgelu/random", "ViT-B-16": "ViT-B-16-quickgelu/random"}
MODELS, QUICK = (*BUDGETS, *RANDOM), ("tiny-clean",)
SETS = ("animals", "food", "vehicles")
LIMIT, QUICK_LIMIT, QUICK_BUDGET = 14, 5, ("3/255",)
STEPS, RANDOM_STEPS, BATCH, REPEATS = 20, 5, 8, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the part."""
    parser.add_argument("--models", nargs="+", metavar="LIST", help=f"default: {', '.join(MODELS)} (random weights)")
    parser.add_argument("--datasets", nargs="+", metavar="LIST",
                        help=f"sets of the embedded models (default: {', '.join(SETS)})")  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help=f"test samples of each set (default: {LIMIT})")
    parser.add_argument("--eps", nargs="+", metavar="LIST", help="default: 2/255, 3/255 (tiny-clean), else 4/255")
    parser.add_argument("--attacks", nargs="+", metavar="LIST", help="suites that stand against standard AutoAttack "
                        "(default: worst, worst.fast); none for none")  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="N", help=f"steps of PGD and CW (default: {STEPS}; "
                        f"{RANDOM_STEPS} of a random ViT)")  # fmt: skip
    parser.add_argument("--batch", type=int, metavar="N", help=f"images of a random ViT (default: {BATCH})")
    parser.add_argument("--records", type=Path, metavar="DIR", help="only compare the suites with AutoAttack's "
                        "verdicts stored here: all, or those of --models, --datasets and --eps")  # fmt: skip
    bench_output.add_output(parser, "15 samples of one embedded model", repeats=REPEATS, device=True)
    parser.set_defaults(repeats=None)  # with --records only what was not asked for may be left out


def execute(args: argparse.Namespace) -> int:
    """Prints the table; every option is checked before anything is measured."""
    bench_output.check(args, "limit", "steps", "batch", "repeats")
    suites = _suites(args)
    if args.records is not None:
        from apd_bench.cli.bench_records import compare

        return compare(args, suites)
    from apd_bench.registry import BACKBONES, DATASETS

    names = bench_output.listed(args, "models") or (QUICK if args.quick else MODELS)
    models = [BACKBONES.canonical(RANDOM.get(name, name)) for name in names]
    datasets = [DATASETS.canonical(name) for name in bench_output.listed(args, "datasets") or SETS]
    asked = [parse_eps(text) for text in bench_output.listed(args, "eps")]
    if 0.0 in asked:
        raise UsageError("A budget of 0 leaves nothing to compare.")
    pairs = []
    for name in models:
        budgets = asked or [parse_eps(text) for text in _budgets(name, args.quick)]
        for eps in budgets:
            for pair in _measure(args, name, eps, datasets, suites):
                err(f"{pair.backbone} {format_eps(pair.eps)} {pair.attack}: {pair.ratio:.2f}x")
                pairs.append(pair)
    from apd_bench.bench.attack_tables import as_json, markdown

    write(args, markdown(pairs), as_json(pairs, args.device))
    return EXIT_DONE


def _measure(args: argparse.Namespace, name: str, eps: float, datasets: Sequence[str], suites: Sequence[str]) -> Any:
    from apd_bench.backbones.load import load
    from apd_bench.bench.attacks import compare, embedded_case, random_case
    from apd_bench.registry import BACKBONES

    backbone, repeats = load(BACKBONES.get(name), args.device), args.repeats or REPEATS
    if name.endswith("/random"):
        case = random_case(backbone, eps, args.batch or BATCH)
        return compare(case, steps=args.steps or RANDOM_STEPS, repeats=repeats)
    limit = args.limit or (QUICK_LIMIT if args.quick else LIMIT)
    case = embedded_case(backbone, eps, datasets, limit)
    return compare(case, steps=args.steps or STEPS, repeats=repeats, suites=suites)


def _budgets(name: str, quick: bool) -> tuple[str, ...]:
    return QUICK_BUDGET if quick and name in QUICK else BUDGETS.get(name, OTHER_BUDGET)


def _suites(args: argparse.Namespace) -> list[str]:
    """The attacks that were asked for, as they are written; raises for a name or option that does not exist."""
    from apd_bench.attacks.parse import parse_attack
    from apd_bench.registry import ATTACKS

    if args.attacks is None:
        return ["worst", "worst.fast"]
    asked = [text for text in bench_output.listed(args, "attacks") if text != "none"]
    for text in asked:
        entry = ATTACKS.get(parse_attack(text).name)
        if entry.kind != "ball" or entry.extra is not None:
            raise UsageError(f"{text} cannot stand against AutoAttack: it is no attack of ours within a ball.")
    return asked


def write(args: argparse.Namespace, table: str, data: dict[str, Any]) -> None:
    """Prints a table below the machine in words; writes the files that were asked for."""
    facts = machine(args.device)
    words = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "machine")
    bench_output.write(args, f"{facts['machine']}; {words}.\n\n{table}", data)
