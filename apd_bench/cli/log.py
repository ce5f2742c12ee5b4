"""`apd-bench log FILE.jsonl`: the losses and accuracies in a run's log, here or in TensorBoard or W&B."""

import argparse
from pathlib import Path

from apd_bench.cli.console import out
from apd_bench.core.errors import EXIT_DONE
from apd_bench.core.text import table
from apd_bench.runner.log_readers import Scalar, log_events, scalars, to_tensorboard, to_wandb

EXAMPLES = """examples:
  apd-bench run --log run.jsonl                      a run that writes one
  apd-bench log run.jsonl                            the last of every number
  apd-bench log run.jsonl --tensorboard tb --follow  while the run goes on
  apd-bench log run.jsonl --wandb my-project         one run a fit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help="what --log wrote")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--tensorboard", type=Path, metavar="DIR", help="write event files (extra tensorboard)")
    where.add_argument("--wandb", metavar="PROJECT", help="send to a project of Weights & Biases (extra wandb)")
    parser.add_argument("--follow", action="store_true", help="go on until the run ends")


def execute(args: argparse.Namespace) -> int:
    """Hands the numbers on, or prints the last of each."""
    numbers = scalars(log_events(args.file, follow=args.follow))
    if args.tensorboard is not None:
        to_tensorboard(numbers, args.tensorboard)
    elif args.wandb is not None:
        to_wandb(numbers, args.wandb)
    else:
        last: dict[tuple[str, str], Scalar] = {}
        for item in numbers:  # a live epoch may stand before an earlier one, which the end of the fit told
            known = last.setdefault((item.fit, item.name), item)
            last[item.fit, item.name] = item if (item.step or 0) >= (known.step or 0) else known
        rows = [(item.fit, item.name, str(item.step or ""), f"{item.value:.4g}") for item in last.values()]
        out(table(rows, ("fit", "number", "epoch", "value")) if rows else "No fit was trained and no cell measured.")
    return EXIT_DONE
