"""The options that `run`, `plan` and `fit` share, and how they become a plan, a store and an executor."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from apd_bench.errors import UsageError
from apd_bench.registry import ATTACKS, BACKBONES, DATASETS, METHODS
from apd_bench.runner.machine import Machine
from apd_bench.runner.selection import Selection, split_list
from apd_bench.runner.shards import SHARD
from apd_bench.specs import Suite
from apd_bench.suites import DEFAULT_SUITE, load_suite

RESULTS = "results"
_OWN = {
    "methods": "FILE.py:NAME",
    "attacks": "FILE.py:NAME",
    "datasets": "FILE.py:NAME",
    "backbones": "FILE.py:NAME, local:FILE@ARCHITECTURE",
}
BOARDS = "leaderboards"


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Declares what chooses the cells."""
    group = parser.add_argument_group("what to measure (lists by comma or space; 'all', wildcards, '!name' excludes)")
    group.add_argument("named_suite", nargs="?", metavar="SUITE", help="a suite, as --suite")
    group.add_argument(
        "--suite",
        "--grid",
        default=DEFAULT_SUITE,
        metavar="NAME|FILE",
        help="the declared grid to start from (default: embedded)",
    )
    group.add_argument("--backbone", nargs="+", metavar="LIST", help="image-text models")
    group.add_argument("--methods", nargs="+", metavar="LIST", help="prompt methods, by name or alias")
    group.add_argument("--datasets", nargs="+", metavar="LIST", help="'all' means all of the suite")
    group.add_argument("--attacks", nargs="+", metavar="LIST", help="with options where wanted: 'pgd(steps=100)'")
    group.add_argument("--eps", nargs="+", metavar="LIST", help="budgets in [0,1] pixel units, as 4/255 or 0.0157")
    group.add_argument("--seeds", nargs="+", metavar="LIST", help="whole numbers, or a range as 1-5")
    group.add_argument("--shots", nargs="+", metavar="LIST", help="training images per class; -1 for all")
    group.add_argument("--limit", metavar="N", help="test samples per dataset, with fixed ids; 'all' for all")
    group.add_argument("--no-reference", action="store_true", help="leave out the suite's reference methods")
    group.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="one setting: training.epochs=5, apd.objective.temperature=2, precision=bf16",
    )


def add_places(parser: argparse.ArgumentParser) -> None:
    """Declares where things lie."""
    group = parser.add_argument_group("where")
    group.add_argument(
        "--results", type=Path, default=Path(RESULTS), metavar="DIR", help="the folder of records (default: results)"
    )
    group.add_argument(
        "--data", type=Path, metavar="DIR", help="the folder of the real datasets (default: $APD_BENCH_DATA)"
    )
    group.add_argument("--offline", action="store_true", help="never use the network")


def add_strategy(parser: argparse.ArgumentParser) -> None:
    """Declares which of the chosen cells are worked on."""
    group = parser.add_argument_group(
        "which cells (default: all that have no success yet)"
    ).add_mutually_exclusive_group()
    group.add_argument("--missing", action="store_true", help="only those without any record: leaves failed ones alone")
    group.add_argument("--failed", action="store_true", help="only those that failed or were cancelled")
    group.add_argument("--force", action="store_true", help="all, even those that are done")
    group.add_argument("--cached-only", action="store_true", help="none: only write the boards from what is stored")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Declares how the work is carried out; nothing here changes a number's identity."""
    group = parser.add_argument_group("how")
    group.add_argument(
        "--jobs",
        type=_jobs,
        metavar="N",
        help="worker processes (default: the number of cores for tiny models on a CPU, else 1)",
    )
    group.add_argument(
        "--device", default=None, metavar="NAME", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)"
    )
    group.add_argument(
        "--batch-size",
        type=_batch_size,
        metavar="N",
        help="images per batch, or 'auto' (default): on CUDA the largest power of two whose measured memory fits, else "
        "100 of a tiny model and 32 of others; halved when memory runs out",
    )
    group.add_argument(
        "--shard",
        type=_shard,
        metavar="N",
        help="measure larger cells in parts of about N samples, which are kept and merged (default: 500)",
    )
    group.add_argument(
        "--executor", default="local", choices=("local", "ray"), help="where the work is done (default: local)"
    )
    group.add_argument("--address", metavar="HOST:PORT|auto", help="of a Ray cluster (default: start one here)")
    group.add_argument("--calibrate", action="store_true", help="with a plan: time the backbones on this machine first")
    group.add_argument(
        "--wait", action="store_true", help="wait for another run on the same folder instead of refusing"
    )


def add_display(parser: argparse.ArgumentParser) -> None:
    """Declares how much is shown."""
    group = parser.add_argument_group("display")
    group.add_argument(
        "--display",
        default="auto",
        choices=("auto", "rich", "plain", "json", "none"),
        help="how progress is shown (default: rich on a terminal, else plain)",
    )
    group.add_argument("-v", "--verbose", action="store_true", help="show tracebacks of failed cells")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress")


def add_own(parser: argparse.ArgumentParser) -> None:
    """Declares what of one's own the records use: code is only run when it is named here or installed."""
    group = parser.add_argument_group("code and files of your own that the records use")
    for name, what in _OWN.items():
        group.add_argument(f"--{name}", action="extend", nargs="+", default=[], metavar="LIST", help=what)


def name_own(args: argparse.Namespace) -> None:
    """Makes what `add_own` declared known; raises UserError for what does not exist."""
    registries = {"methods": METHODS, "attacks": ATTACKS, "datasets": DATASETS, "backbones": BACKBONES}
    for kind, registry in registries.items():
        for name in split_list(getattr(args, kind)):
            registry.canonical(name)


def selection_of(args: argparse.Namespace) -> Selection:
    """The selection behind the parsed options."""

    def names(value: list[str] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(split_list(value))

    return Selection(
        backbones=names(args.backbone),
        methods=names(args.methods),
        datasets=names(args.datasets),
        attacks=names(args.attacks),
        eps=names(args.eps),
        seeds=_numbers("seeds", args.seeds),
        shots=_numbers("shots", args.shots),
        limit=_limit(args.limit),
        reference=not args.no_reference,
        settings=tuple(args.set or ()),
    )


def suite_of(args: argparse.Namespace) -> Suite:
    """The suite that the options name, or the word after the verb."""
    named = getattr(args, "named_suite", None)
    if named is not None and args.suite not in (DEFAULT_SUITE, named):
        raise UsageError(f"Two suites are named: '{named}' and --suite {args.suite}.", hint="Keep one of them.")
    return load_suite(named or args.suite)


def strategy_of(args: argparse.Namespace) -> str:
    """Which cells are worked on, as one word."""
    for name in ("missing", "failed", "force"):
        if getattr(args, name):
            return name
    return "cached" if args.cached_only else "unfinished"


def prepare_environment(args: argparse.Namespace) -> None:
    """Lets loaders and workers know what the options say about data and network."""
    if args.data is not None:
        os.environ["APD_BENCH_DATA"] = str(args.data)
    if args.offline:
        os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def _numbers(what: str, values: list[str] | None) -> tuple[int, ...] | None:
    if values is None:
        return None
    numbers: list[int] = []
    for item in split_list(values):
        span = re.fullmatch(r"(\d+)-(\d+)", item)
        if span:
            if int(span[1]) > int(span[2]):
                raise UsageError(f"--{what} {item} runs backwards.", hint=f"Write --{what} {span[2]}-{span[1]}.")
            numbers += range(int(span[1]), int(span[2]) + 1)
            continue
        if not re.fullmatch(r"\d+|-1" if what == "shots" else r"\d+", item):
            raise UsageError(f"--{what} takes whole numbers, not '{item}'.", hint=f"Write --{what} 1,2,3.")
        numbers.append(int(item))
    return tuple(numbers)


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "all":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--limit takes a number of samples or 'all', not '{text}'.", hint="Write --limit 20.")
    return int(text)


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--jobs takes a number of processes, not '{text}'.", hint="Write --jobs 2.")
    return int(text)


def _shard(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--shard takes a number of samples, not '{text}'.", hint="Write --shard 500.")
    return int(text)


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(
            f"--batch-size takes a number of images or 'auto', not '{text}'.", hint="Write --batch-size 32."
        )
    return int(text)


def machine_of(args: argparse.Namespace) -> Machine:
    """How the work is carried out, as the options say."""
    return Machine(
        jobs=args.jobs,
        executor=args.executor,
        address=args.address,
        device=args.device,
        batch_size=args.batch_size,
        wait=args.wait,
        shard_size=args.shard or SHARD,
    )
