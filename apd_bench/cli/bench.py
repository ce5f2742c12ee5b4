"""`apd-bench bench [PART]`: our paths and the field's usual ones, timed side by side on this machine."""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from apd_bench.errors import UsageError

EXAMPLES = """examples:
  apd-bench bench --quick                          all parts in a few minutes, and one table of them
  apd-bench bench --out bench                      all parts in full; tables and numbers go to the folder bench
  apd-bench bench --read --out bench               the table again, from the numbers in that folder
  apd-bench bench train                            one training step on ViT-B/32 shapes, 100 classes, batch 4 and 32
  apd-bench bench train --classes 1000 --batch 4   the class list of ImageNet
  apd-bench bench attacks --quick                  PGD, CW and the suites against torchattacks and AutoAttack
  apd-bench bench attacks --records results        the suites against stored verdicts of AutoAttack
  apd-bench bench loop                             the attack loop beside the bare passes of its model
  apd-bench bench store --records 1000,20000       planning and ranking, by the number of records
  apd-bench bench data oxford_pets --limit 1000    decoding against the image cache, on a set of yours
"""
PARTS = {
    "startup": "how fast the command answers, beside importing torch",
    "store": "planning and ranking by the number of records",
    "data": "decoding, and reading from the image cache",
    "loop": "the attack loop beside the bare passes of its model",
    "train": "one training step, ours and the usual one",
    "attacks": "our attacks and the usual ones on the same samples",
    "memory": "the memory of 1,000 classes and of FAB",
    "precision": "how many verdicts an attack in bf16 changes",
}


def parts() -> dict[str, str]:
    """The parts of this installation with their help lines."""
    return {name: line for name, line in PARTS.items() if find_spec(f"apd_bench.cli.bench_{name}") is not None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.epilog = EXAMPLES
    parser.add_argument("--quick", action="store_true", help="all parts in less than five minutes on two idle cores")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write the tables and their numbers here")
    parser.add_argument("--read", action="store_true", help="measure nothing: read the numbers of the parts in --out")
    choices = parser.add_subparsers(dest="part", metavar="PART", parser_class=type(parser))
    for name, line in parts().items():
        import_module(f"apd_bench.cli.bench_{name}").add_arguments(choices.add_parser(name, help=line))


def execute(args: argparse.Namespace) -> int:
    """Prints the table of one part, or of all."""
    if args.part is not None:
        for option, given in (("--out", args.out is not None), ("--read", args.read)):
            if given:
                raise UsageError(
                    f"{option} is for all parts together; the part '{args.part}' writes its own files.",
                    hint=f"Write: apd-bench bench {args.part} --json FILE --markdown FILE",
                )
        return int(import_module(f"apd_bench.cli.bench_{args.part}").execute(args))
    if args.read and args.out is None:
        raise UsageError("--read needs the folder to read from.", hint="Write --read --out DIR.")
    from apd_bench.cli.bench_all import summarise

    return summarise(list(parts()), quick=args.quick, out_folder=args.out, read=args.read)
