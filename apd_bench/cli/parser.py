"""The parser of the command line: options read the environment, lists add up, complaints are UsageErrors."""

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from apd_bench.cli.console import out
from apd_bench.core.errors import UsageError, unknown_name


class _Gather(argparse.Action):
    """A list: what an option is given adds up, and replaces the default as a whole."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        before = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, [*(() if before is self.default else before or ()), *values])


class _Help(argparse.Action):
    """Prints the help and ends: all of it, or the options that most people need."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        out((parser.format_help() if self.const else parser.short_help()).rstrip("\n"))
        parser.exit()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """`--methods, --method LIST` instead of argparse's `--methods LIST [LIST ...], --method LIST [LIST ...]`."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = ", ".join(action.option_strings)
        return names if action.nargs == 0 else f"{names} {self._format_args(action, str(action.dest).upper())}"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        several = action.nargs == argparse.ONE_OR_MORE and action.option_strings
        return str(action.metavar or default_metavar) if several else super()._format_args(action, default_metavar)


class Parser(argparse.ArgumentParser):
    """An argument parser that reads the environment, and whose complaints are UsageErrors with a nearest match.

    `rare` options stand in the help of `--help-all` alone.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, add_help=False, **options)
        self.rare: list[argparse.Action] = []
        about: dict[str, Any] = {"action": _Help, "nargs": 0, "dest": argparse.SUPPRESS, "default": argparse.SUPPRESS}
        self.add_argument("-h", "--help", const=False, help="this text", **about)
        self._all = self.add_argument("--help-all", const=True, help=argparse.SUPPRESS, **about)
        self.register("action", "extend", _Gather)

    def format_help(self) -> str:
        """All options."""
        self.usage = self._usage().removeprefix("usage: ").replace("%", "%%")
        self._all.help = "every option" if self.rare else argparse.SUPPRESS
        return super().format_help()

    def short_help(self) -> str:
        """The options that most people need."""
        helps = [action.help for action in self.rare]
        for action in self.rare:
            action.help = argparse.SUPPRESS
        try:
            return self.format_help()
        finally:
            for action, text in zip(self.rare, helps, strict=True):
                action.help = text

    def _usage(self) -> str:
        formatter = self._get_formatter()
        places = [action for action in self._get_positional_actions() if action.help is not argparse.SUPPRESS]
        words = [formatter._format_args(action, str(action.metavar or action.dest)) for action in places]
        return " ".join(["usage:", self.prog, *words, "[options]"])

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse; a part complains about words itself, since the parser of its verb knows only its own options."""
        self._read_environment()
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def _read_environment(self) -> None:
        """Makes what the variable of an option says its default, where there is one."""
        for action in self._actions:
            flag = next((name for name in action.option_strings if name.startswith("--")), "")
            variable = "APD_BENCH_" + flag.removeprefix("--").replace("-", "_").upper()
            if not flag or action.default is argparse.SUPPRESS or variable not in os.environ:
                continue
            action.required = False
            if action.nargs == 0:
                from apd_bench.core.options import Spelling, switch  # not for --help

                action.default = switch(os.environ[variable], Spelling(variable, f"{variable}={{}}"))
                continue
            read: Any = action.type or str
            value = read(os.environ[variable])
            if action.choices and value not in action.choices:
                raise unknown_name(f"value of {variable}", str(value), map(str, action.choices))
            action.default = [value] if isinstance(action, _Gather) else value

    def error(self, message: str) -> NoReturn:
        """Raises the complaint."""
        unknown, _, rest = message.partition("unrecognized arguments: ")
        if rest and not unknown:
            first = rest.split()[0]
            if first.startswith("-"):
                known = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", self.format_help()))
                every = "--help-all" if self.rare else "--help"
                raise unknown_name("option", first.partition("=")[0], known, command=f"{self.prog} {every}")
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", hint=f"See: {self.prog} --help")
