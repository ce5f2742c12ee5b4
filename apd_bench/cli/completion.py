"""Completion in shells, by the package argcomplete: `eval "$(register-python-argcomplete apd-bench)"`."""

import argparse
import os
from collections.abc import Callable, Mapping
from importlib import import_module

from apd_bench.cli.parser import Parser
from apd_bench.core.registry import ATTACKS, BACKBONES, DATASETS, METHODS
from apd_bench.suites import suite_names


def complete(verbs: Mapping[str, tuple[str, str]]) -> None:
    """Answers the shell and ends the process; does nothing where argcomplete is not installed."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(_parser(verbs, os.environ.get("COMP_LINE", "")))


def _parser(known: Mapping[str, tuple[str, str]], line: str) -> argparse.ArgumentParser:
    """All verbs, and the options of the one in `line`."""
    whole = Parser(prog="apd-bench")
    verbs = whole.add_subparsers(parser_class=Parser)
    for verb, (module, about) in known.items():
        parser = verbs.add_parser(verb, help=about)
        if verb in line.split()[1:2]:
            import_module(f"apd_bench.cli.{module}").add_arguments(parser)
            for action in parser._actions:
                names = _NAMES.get(action.dest)
                if names is not None:
                    action.completer = _within_a_list(names)  # type: ignore[attr-defined]
    return whole


_NAMES: dict[str, Callable[[], list[str]]] = {
    "methods": METHODS.names, "method": METHODS.names, "datasets": DATASETS.names, "attacks": ATTACKS.names,
    "backbones": BACKBONES.names, "suite": suite_names, "named_suite": suite_names,
}  # fmt: skip


def _within_a_list(names: Callable[[], list[str]]) -> Callable[..., list[str]]:
    """Completes the last of names that are joined by commas."""

    def completer(prefix: str, **_: object) -> list[str]:
        before = prefix[: prefix.rfind(",") + 1]
        return [before + name for name in names() if (before + name).startswith(prefix)]

    return completer
