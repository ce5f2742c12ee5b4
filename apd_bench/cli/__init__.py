"""The command line: `apd-bench VERB ...`. Each verb is one module, imported only when it is asked for.

Exit codes: 0 done, 1 some cells failed, 2 usage or missing prerequisite, 3 regression or stale board, 130 interrupted.
Every option also reads the environment variable `APD_BENCH_<OPTION>`; the command line wins. Below both stands the
table [options] of the suite.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from apd_bench.cli.console import err, out
from apd_bench.cli.parser import Parser
from apd_bench.core.errors import EXIT_DONE, EXIT_INTERRUPTED, UsageError, UserError, unknown_name
from apd_bench.core.files import explain

# verb: (module, help line). A module must not be called like a built-in: importing it makes it a name of this package.
VERBS: dict[str, tuple[str, str]] = {
    "run": ("run", "train, attack, record and rank: the whole grid, or what is left of it"),
    "plan": ("plan", "show the cells of a run: done, to do, impossible, and what they cost"),
    "list": ("list_", "list methods, datasets, attacks, backbones, suites, cells"),
    "show": ("show", "show one record, recipe, dataset, attack, backbone or suite"),
    "fit": ("fit", "train prompts without attacking them"),
    "tune": ("tune", "choose hyper-parameters on validation images, with equal tries for every method"),
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
    "audit": ("audit", "hold the protocol of a paper against a sound attack, on somebody's checkpoint"),
    "push": ("push", "put trained prompts on the Hugging Face hub, where --methods hf://ORG/REPO finds them"),
    "doctor": ("doctor", "what this machine has and what it lacks"),
}
_EPILOG = """examples:
  apd-bench run                                   the embedded suite, from nothing to a leaderboard
  apd-bench run --methods apd,apt --datasets all  two methods on every dataset of the suite
  apd-bench plan --eps 1/255,4/255 --seeds 1,2,3  what a larger grid would cost
  apd-bench list methods                          what there is
  apd-bench run --help                            all options of one verb
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; user errors become one line on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an encoding such as cp1252 lacks is shown as "?"
            stream.reconfigure(errors="replace")
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
    if first in ("--help", "-h", "help"):
        if len(words) > 1:
            return _run([words[1], "--help"])
        out(_overview())
        return EXIT_DONE
    if first.startswith("-"):
        raise UsageError(f"The first word is a verb, not an option: '{first}'.", hint="See: apd-bench --help")
    try:
        args = parsed(first, words[1:])
    except SystemExit as ending:  # --help and --version inside a verb
        return int(ending.code or 0)
    return int(import_module(f"apd_bench.cli.{VERBS[first][0]}").execute(args))


def _overview() -> str:
    lines = "\n".join(f"  {verb:<11}{line}" for verb, (_, line) in VERBS.items())
    return (
        "usage: apd-bench VERB [options]\n\n"
        "Fair, attackable, resumable comparison of adversarial prompt tuning for CLIP-like models.\n\n"
        f"verbs:\n{lines}\n\noptions:\n  -h, --help  this text, or `apd-bench VERB --help`\n"
        f"  --version   the version\n\n{_EPILOG.rstrip()}"
    )


def _complain(text: str) -> None:
    err(f"apd-bench: error: {' '.join(text.split())}")
