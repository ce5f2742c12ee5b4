"""The command line: `apd-bench VERB ...`. Each verb is one module, imported only when it is asked for.

Exit codes: 0 done, 1 some cells failed, 2 usage or missing prerequisite, 3 regression or stale board, 130 interrupted.
Every option also reads the environment variable `APD_BENCH_<OPTION>`; the command line wins. Below both stands the
table [options] of the suite.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NoReturn

from apd_bench.errors import EXIT_DONE, EXIT_INTERRUPTED, UsageError, UserError, unknown_name
from apd_bench.files import explain

# verb: (module, help line). A verb whose module is not part of this installation is not listed. A module must not be
# called like a built-in: importing it makes it a name of this package.
VERBS: dict[str, tuple[str, str]] = {
    "run": ("run", "train, attack, record and rank: the whole grid, or what is left of it"),
    "plan": ("plan", "show the cells of a run: done, to do, impossible, and what they cost"),
    "list": ("list_", "list methods, datasets, attacks, backbones, suites, cells"),
    "show": ("show", "show one record, recipe, dataset, attack, backbone or suite"),
    "fit": ("fit", "train prompts without attacking them"),
    "report": ("report", "turn stored records into leaderboards, without a model"),
    "compare": ("compare", "compare two methods, sample by sample"),
    "plot": ("plot", "draw curves and boards from stored records"),
    "published": ("published", "numbers from the literature, with source and protocol"),
    "verify": ("verify", "run the reduced grid and compare it with the expected values"),
    "examples": ("examples", "pictures of attacked images for the web page"),
    "submit": ("submit", "pack results so that somebody else can check them"),
    "verify-submission": ("verify_submission", "check an archive by measuring some of its cells again"),
    "datasets": ("datasets", "list, check and prepare datasets"),
    "check": ("check", "check a method: what it learns, how it trains, whether it masks gradients"),
    "import": ("import_", "import prompts trained elsewhere"),
    "doctor": ("doctor", "what this machine has and what it lacks"),
}
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}
_EPILOG = """examples:
  apd-bench run                                   the embedded suite, from nothing to a leaderboard
  apd-bench run --methods apd,apt --datasets all  two methods on every dataset of the suite
  apd-bench plan --eps 1/255,4/255 --seeds 1,2,3  what a larger grid would cost
  apd-bench list methods                          what there is
  apd-bench run --help                            all options of one verb
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UsageErrors with a nearest match."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

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
                known = [name for name in self._option_string_actions if name.startswith("--")]
                raise unknown_name("option", first.partition("=")[0], known, command=f"{self.prog} --help")
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", hint=f"See: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; user errors become one line on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except UserError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("stopped at once; what was finished is stored, and the same command goes on from there.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `apd-bench list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except OSError as error:
        explained = explain(error, getattr(error, "filename", None) or ".")
        if not isinstance(explained, UserError):
            raise
        _complain(str(explained))
        return explained.exit_code


def verb_parser(verb: str, options: Mapping[str, object] | None = None) -> Parser:
    """The parser of one verb, its defaults taken from the environment, and below that from a suite's `options`."""
    if verb not in VERBS:
        raise unknown_name("verb", verb, VERBS, command="apd-bench --help")
    name, line = VERBS[verb]
    module = import_module(f"apd_bench.cli.{name}")
    parser = Parser(prog=f"apd-bench {verb}", description=f"{line[:1].upper()}{line[1:]}.")
    module.add_arguments(parser)
    for action in parser._actions:
        if options and action.dest in options:
            value = options[action.dest]
            _set_default(action, f"{action.dest} in [options]", str(int(value) if isinstance(value, bool) else value))
    apply_environment(parser)
    return parser


def apply_environment(parser: argparse.ArgumentParser) -> None:
    """Sets the default of every option from `APD_BENCH_<OPTION>` where that is set."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                apply_environment(inner)
            continue
        names = [name for name in action.option_strings if name.startswith("--")]
        if not names or action.default is argparse.SUPPRESS:  # --help, or what the verb has set above its parts
            continue
        variable = "APD_BENCH_" + names[0].removeprefix("--").replace("-", "_").upper()
        text = os.environ.get(variable)
        if text is not None:
            _set_default(action, variable, text)


def _set_default(action: argparse.Action, source: str, text: str) -> None:
    """Makes `text` the default of an option; raises UsageError, naming the `source`, where it cannot be."""
    if isinstance(action, (argparse._StoreTrueAction, argparse._StoreFalseAction)):
        if text.lower() not in _TRUE | _FALSE:
            raise UsageError(f"{source}='{text}' is neither true nor false.", hint=f"Write {source}=1 or 0.")
        action.default = action.const if text.lower() in _TRUE else not action.const
    elif action.nargs in ("*", "+") or isinstance(action, argparse._AppendAction):
        action.default = [text]
    else:
        action.default = text  # argparse applies the option's type to a default that is text
        if action.choices is not None and text not in action.choices:
            raise unknown_name(f"value of {source}", text, [str(choice) for choice in action.choices])


def _run(words: list[str]) -> int:
    first = words[0] if words else "--help"
    if first in ("--version", "-V"):
        from apd_bench import __version__  # reads the metadata of the package, which --help does not need

        sys.stdout.write(f"apd-bench {__version__}\n")
        return EXIT_DONE
    if first in ("--help", "-h", "help"):
        if len(words) > 1:
            return _run([words[1], "--help"])
        sys.stdout.write(_overview())
        return EXIT_DONE
    if first.startswith("-"):
        raise UsageError(f"The first word is a verb, not an option: '{first}'.", hint="See: apd-bench --help")
    parser = verb_parser(first)
    try:
        args = parser.parse_args(words[1:])
        if "named_suite" in args:
            options = import_module("apd_bench.cli.arguments").suite_of(args).options
            args = verb_parser(first, options).parse_args(words[1:]) if options else args
    except SystemExit as ending:  # --help and --version inside a verb
        return int(ending.code or 0)
    module = import_module(f"apd_bench.cli.{VERBS[first][0]}")
    return int(module.execute(args))


def _overview() -> str:
    lines = "\n".join(f"  {verb:<11}{line}" for verb, (_, line) in VERBS.items())
    return (
        "usage: apd-bench VERB [options]\n\n"
        "Fair, attackable, resumable comparison of adversarial prompt tuning for CLIP-like models.\n\n"
        f"verbs:\n{lines}\n\noptions:\n  -h, --help  this text, or `apd-bench VERB --help`\n"
        f"  --version   the version\n\n{_EPILOG}"
    )


def _complain(text: str) -> None:
    sys.stderr.write(f"apd-bench: error: {' '.join(text.split())}\n")
