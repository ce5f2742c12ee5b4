"""The command line: `apd-bench VERB ...`. Each verb is one module, imported only when it is asked for.

Its `add_arguments` declares the options of the verb, its `execute` carries it out and returns the exit code.

Exit codes: 0 done, 1 some cells failed, 2 usage or missing prerequisite, 3 regression or stale board, 130 interrupted.
Every option also reads the environment variable `APD_BENCH_<OPTION>`; the command line wins. Below both stands the
table [options] of the suite.
"""

import argparse
import io
import os
import shutil
import sys
from collections.abc import Sequence
from importlib import import_module

from apd_bench.cli.console import err, out
from apd_bench.cli.parser import Parser
from apd_bench.cli.topics import TOPICS, text_of
from apd_bench.core.errors import EXIT_DONE, EXIT_INTERRUPTED, UsageError, UserError, unknown_name
from apd_bench.core.files import explain

# group: verb: (module, help line). A module must not be called like a built-in: importing it makes it a name of this
# package.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "measure": {
        "run": ("run", "train, attack, record, rank: a grid, or what is left of it"),
        "plan": ("plan", "the cells of a run: done, to do, impossible; what they cost"),
        "fit": ("fit", "train prompts without attacking them"),
        "tune": ("tune", "choose hyper-parameters with equal tries for every method"),
        "audit": ("audit", "a checkpoint under its paper's attack and under a sound one"),
    },
    "read": {
        "list": ("list_", "methods, datasets, attacks, backbones, suites, cells, fits"),
        "show": ("show", "one cell, fit, recipe, dataset, attack, backbone or suite"),
        "report": ("report", "stored records as leaderboards, without a model"),
        "compare": ("compare", "two methods, sample by sample"),
        "plot": ("plot", "figures from stored records"),
        "log": ("log", "losses of a run's --log, here or in TensorBoard or W&B"),
        "published": ("published", "numbers of the literature, with source and protocol"),
        "examples": ("examples", "pictures of attacked images, for the page"),
    },
    "share": {
        "import": ("import_", "read prompts that were trained elsewhere"),
        "push": ("push", "put trained prompts on the Hugging Face hub"),
        "submit": ("submit", "pack results so that somebody else can check them"),
        "verify-submission": ("verify_submission", "check an archive: some of its cells are measured again"),
    },
    "check": {
        "doctor": ("doctor", "what this machine has and what it lacks"),
        "datasets": ("datasets", "list, check and prepare datasets"),
        "check": ("check", "a method: what it learns, how it trains, what it hides"),
        "verify": ("verify", "a small grid against the values that are expected"),
    },
}
VERBS = {verb: about for group in GROUPS.values() for verb, about in group.items()}
_EPILOG = """examples:
  apd-bench run                                 the embedded suite, to its board
  apd-bench run --methods apd,apt --limit 5     two methods, five images a set
  apd-bench plan --eps 1/255,4/255 --seeds 1-3  what a larger grid would cost
  apd-bench list methods                        what there is
  apd-bench run --help                          the options of one verb
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; user errors become one line on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an encoding such as cp1252 lacks is shown as "?"
            stream.reconfigure(errors="replace")
    if "_ARGCOMPLETE" in os.environ:
        from apd_bench.cli.completion import complete

        complete(VERBS)
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


def verb_parser(verb: str) -> Parser:
    """The parser of one verb, its defaults taken from the environment."""
    if verb not in VERBS:
        raise unknown_name("verb", verb, VERBS, command="apd-bench --help")
    name, line = VERBS[verb]
    module = import_module(f"apd_bench.cli.{name}")
    parser = Parser(prog=f"apd-bench {verb}", description=f"{line[:1].upper()}{line[1:]}.", epilog=module.EXAMPLES)
    module.add_arguments(parser)
    return parser


def parsed(verb: str, words: Sequence[str]) -> argparse.Namespace:
    """The parsed command line of a verb; `options` are those of a run, for the verbs that have them."""
    args = verb_parser(verb).parse_args(words)
    if "declared" in args:
        args.options = import_module("apd_bench.cli.arguments").options_of(args)
    return args


def _run(words: list[str]) -> int:
    first = words[0] if words else "--help"
    if first in ("--version", "-V"):
        from apd_bench import __version__  # reads the metadata of the package, which --help does not need

        out(f"apd-bench {__version__}")
        return EXIT_DONE
    if first in ("--help", "-h", "help", "--help-all"):
        if len(words) < 2:
            out(_overview())
            return EXIT_DONE
        if words[1] not in TOPICS:
            return _run([words[1], "--help"])
        out(text_of(words[1], min(shutil.get_terminal_size().columns, 100)))
        return EXIT_DONE
    if first.startswith("-"):
        raise UsageError(f"The first word is a verb, not an option: '{first}'.", hint="See: apd-bench --help")
    try:
        args = parsed(first, words[1:])
    except SystemExit as ending:  # --help and --version inside a verb
        return int(ending.code or 0)
    return int(import_module(f"apd_bench.cli.{VERBS[first][0]}").execute(args))


def _overview() -> str:
    lines = []
    for group, verbs in GROUPS.items():
        lines += [f"{group}:", *(f"  {verb:<19}{line}" for verb, (_, line) in verbs.items()), ""]
    topics = (f"  help {topic:<14}{line}" for topic, line in TOPICS.items())
    return "\n".join(
        [
            "usage: apd-bench VERB [options]",
            "",
            "Fair, attackable, resumable comparison of adversarial prompt tuning for CLIP.",
            "",
            *lines,
            "help:",
            "  VERB --help        the options that most people need; --help-all: every option",
            *topics,
            "  --version          the version",
            "",
            _EPILOG.rstrip(),
        ]
    )


def _complain(text: str) -> None:
    err(f"apd-bench: error: {' '.join(text.split())}")
