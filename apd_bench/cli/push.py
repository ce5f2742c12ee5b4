"""`apd-bench push FIT hf://ORG/REPO`: trained prompts for others, on the Hugging Face hub."""

import argparse
from pathlib import Path

from apd_bench.cli.console import out
from apd_bench.core.errors import EXIT_DONE

EXAMPLES = """examples:
  apd-bench push 1a2b3c hf://me/apd-food     the fit or cell whose id begins so
  apd-bench push prompts/coop-1a2b3c4d hf://me/coop-eurosat --private
  apd-bench run --methods hf://me/apd-food   @REVISION pins one commit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("state", metavar="FIT|FOLDER", help="an id of a fit or cell, or a folder of prompts")
    parser.add_argument("name", metavar="hf://ORG/REPO", help="the repository; it is made where it is not there")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="the folder of records")
    parser.add_argument("--private", action="store_true", help="make a private repository")


def execute(args: argparse.Namespace) -> int:
    """Uploads the state and prints where it lies."""
    from apd_bench.records.store import Store
    from apd_bench.runner.classifiers import stored_state
    from apd_bench.training.sharing import backbone_of, push

    _, state = stored_state(args.state, Store(args.results))
    out(push(state, args.name, private=args.private))
    out(f"Evaluate it: apd-bench run --backbone {backbone_of(state)} --methods {args.name}")
    return EXIT_DONE
