"""The options of `run`, `plan`, `fit` and `verify` on the command line."""

import argparse
from pathlib import Path
from typing import Any

from apd_bench.cli.parser import Parser
from apd_bench.core import options
from apd_bench.core.errors import UsageError, UserError
from apd_bench.core.options import RunOptions
from apd_bench.core.registry import REGISTRIES, Registry
from apd_bench.runner.selection import split_list
from apd_bench.suites import load_suite


def declare(parser: argparse.ArgumentParser, *groups: str, without: tuple[str, ...] = ()) -> None:
    """Adds the options of `groups` to a parser; what is not written on the command line is no part of its result."""
    chosen = {name: item for name, item in options.table().items() if item.group in groups and name not in without}
    for title in groups:
        group: Any = parser.add_argument_group(title)
        if title == options.WHAT and "suite" in chosen:
            group.add_argument(
                "named_suite",
                nargs="?",
                default=argparse.SUPPRESS,
                metavar="SUITE",
                help="a suite by name or file, as --suite (apd-bench help suites)",
            )
        if title == options.WHICH:
            group = group.add_mutually_exclusive_group()
        for name, item in chosen.items():
            if item.group == title:
                shape: dict[str, Any] = {"metavar": item.metavar} if item.metavar else {"action": "store_true"}
                if item.metavar == "LIST":
                    shape |= {"nargs": "+", "action": "extend"}
                elif item.read is options.texts:
                    shape |= {"action": "append"}
                shape |= {"dest": name, "default": argparse.SUPPRESS, "help": item.help}
                action = group.add_argument(item.flag, *item.more_flags, **shape)
                if isinstance(parser, Parser) and name not in options.COMMON:
                    parser.rare.append(action)
    parser.set_defaults(declared=tuple(chosen))


def options_of(args: argparse.Namespace) -> RunOptions:
    """The options behind a parsed command line, the environment and the suite."""
    given = {name: getattr(args, name) for name in args.declared if hasattr(args, name)}
    if "named_suite" in args:
        if given.get("suite", args.named_suite) != args.named_suite:
            raise UsageError(
                f"Two suites are named: '{args.named_suite}' and --suite {given['suite']}.", hint="Keep one of them."
            )
        given["suite"] = args.named_suite
    resolved = options.resolve_options(given, {})
    if "suite" not in args.declared:
        return resolved
    below = load_suite(resolved.suite).options
    return options.resolve_options(given, below) if below else resolved


def add_stores(parser: argparse.ArgumentParser) -> None:
    """Declares the folders that a verb reads; none stands for `results`."""
    # Without a default argparse asks for them where another word is missing.
    parser.add_argument(
        "stores", nargs="*", default=[], type=Path, metavar="STORE", help="folders of records (default: results)"
    )


def add_own(parser: argparse.ArgumentParser) -> None:
    """Declares what of one's own the records use: code is only run when it is named here or installed."""
    group = parser.add_argument_group("code and files of your own that the records use")
    for kind in (f"{registry.kind}s" for registry in REGISTRIES):
        what = "FILE.py:NAME" + (", local:FILE@ARCHITECTURE" if kind == "backbones" else "")
        group.add_argument(f"--{kind}", action="extend", nargs="+", default=[], metavar="LIST", help=what)


def name_own(args: argparse.Namespace) -> None:
    """Makes what `add_own` declared known; raises UserError for what does not exist."""
    for registry in REGISTRIES:
        for name in split_list(getattr(args, f"{registry.kind}s")):
            registry.canonical(name)


def canonical_or_recorded(registry: Registry, name: str) -> str:
    """The canonical name; one that this installation does not know may still be in the records."""
    try:
        return registry.canonical(name)
    except UserError:
        return name
