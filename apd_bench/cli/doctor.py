"""`apd-bench doctor`: what this machine has and what it lacks, with what to do about each problem."""

import argparse
from dataclasses import asdict

from apd_bench.cli.console import err, out, out_json
from apd_bench.cli.installation import OK, PROBLEM, examine
from apd_bench.core.errors import EXIT_DONE, EXIT_USAGE
from apd_bench.core.text import table

EXAMPLES = """examples:
  apd-bench doctor          every finding, then what to do
  apd-bench doctor --json   the same for a program

exit code: 0 without a problem, 2 with one.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.add_argument("--json", action="store_true", help="JSON on standard output")


def execute(args: argparse.Namespace) -> int:
    """Looks at everything and says what is wrong."""
    checks = examine()
    problems = [check for check in checks if check.state == PROBLEM]
    if args.json:
        out_json([asdict(check) for check in checks])
    else:
        signs = {OK: "ok", PROBLEM: "PROBLEM"}
        rows = [(check.area, check.name, signs.get(check.state, check.state), check.detail) for check in checks]
        out(table(rows, ("area", "what", "state", "detail")))
        for check in checks:
            if check.fix and check.state != OK:
                out(f"\n{check.name}: {check.detail}\n  {check.fix}")
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        err(f"\n{count}: see above" if problems else "\nno problems")
    return EXIT_USAGE if problems else EXIT_DONE
