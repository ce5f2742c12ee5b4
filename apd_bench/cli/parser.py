"""The parser of the command line: options read the environment, lists add up, complaints are UsageErrors."""

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from apd_bench.core.errors import UsageError, unknown_name


class _FromEnvironment(argparse.Action):
    """An action whose default is what the variable of its option says, where there is one."""

    def __init__(self, option_strings: Sequence[str], dest: str, **how: Any) -> None:
        self.read = how.get("type") or str
        flag = next((name for name in option_strings if name.startswith("--")), "")
        variable = "APD_BENCH_" + flag.removeprefix("--").replace("-", "_").upper()
        if flag and how.get("default") is not argparse.SUPPRESS and variable in os.environ:
            how |= {"default": self.written(os.environ[variable], variable), "required": False}
            if how.get("choices") and how["default"] not in how["choices"]:
                raise unknown_name(f"value of {variable}", str(how["default"]), map(str, how["choices"]))
        super().__init__(option_strings, dest, **how)

    def written(self, text: str, variable: str) -> Any:
        """The default behind the text of a variable."""
        return text


class _Store(_FromEnvironment):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, values)


class _Switch(_FromEnvironment):
    def __init__(self, option_strings: Sequence[str], dest: str, default: Any = False, **how: Any) -> None:
        super().__init__(option_strings, dest, default=default, nargs=0, **how)

    def written(self, text: str, variable: str) -> bool:
        from apd_bench.core.options import Spelling, switch  # not for --help

        return switch(text, Spelling(variable, f"{variable}={{}}"))

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, True)


class _Gather(_FromEnvironment):
    """A list: what an option is given adds up, and replaces the default as a whole."""

    def written(self, text: str, variable: str) -> list[Any]:
        return [self.read(text)]

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        before = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, [*(() if before is self.default else before or ()), *values])


class Parser(argparse.ArgumentParser):
    """An argument parser that reads the environment, and whose complaints are UsageErrors with a nearest match."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        for name, action in ((None, _Store), ("store", _Store), ("store_true", _Switch), ("extend", _Gather)):
            self.register("action", name, action)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse; a part complains about words itself, since the parser of its verb knows only its own options."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Raises the complaint."""
        unknown, _, rest = message.partition("unrecognized arguments: ")
        if rest and not unknown:
            first = rest.split()[0]
            if first.startswith("-"):
                known = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", self.format_help()))
                raise unknown_name("option", first.partition("=")[0], known, command=f"{self.prog} --help")
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", hint=f"See: {self.prog} --help")
