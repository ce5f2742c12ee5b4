"""How fast the command answers: verbs that need no model against a command that imports torch first. No torch here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial

from apd_bench.bench.rows import Row

COMMANDS = {
    "import apd_bench": ("-c", "import apd_bench"),
    "apd-bench --version": ("-m", "apd_bench", "--version"),
    "apd-bench --help": ("-m", "apd_bench", "--help"),
    "apd-bench run --help": ("-m", "apd_bench", "run", "--help"),
    "apd-bench list methods": ("-m", "apd_bench", "list", "methods"),
}
USUAL = ("-c", "import torch, open_clip")
BARE = ("-c", "pass")
HEAVY = ("torch", "open_clip", "numpy", "pandas")
_PROBE = """
import contextlib, io, sys
from apd_bench.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(sys.argv[1:])
print(*[name for name in {heavy!r} if name in sys.modules])
"""


def startup_rows(repeats: int) -> list[Row]:
    """Every command beside importing torch and open_clip (what the usual entry script does first) and bare Python.

    The seconds are those of the processor, of the process and its children; the shortest wall time is among the facts.
    """
    sides = {name: partial(_run, words) for name, words in COMMANDS.items()}
    sides |= {"usual": partial(_run, USUAL), "bare": partial(_run, BARE)}
    cost: dict[str, list[float]] = {name: [] for name in sides}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, run in sides.items():
            processor, seconds = run()
            if repeat:
                cost[name].append(processor)
                wall[name].append(seconds)
    return [
        Row(
            part="startup",
            what=name,
            ours=tuple(cost[name]),
            usual=tuple(cost["usual"]),
            facts={
                "bare Python s": round(min(cost["bare"]), 3),
                "shortest wall s": round(min(wall[name]), 3),
                "imports": " ".join(imported(words)) or "none of them",
            },
        )
        for name, words in COMMANDS.items()
    ]


def imported(words: Sequence[str]) -> list[str]:
    """Which of the HEAVY packages a command has imported by its end."""
    if words[0] == "-c":
        script = f"{words[1]}\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
        arguments: Sequence[str] = ()
    else:
        script, arguments = _PROBE.format(heavy=HEAVY), words[2:]
    done = subprocess.run(  # noqa: S603  (this interpreter, fixed scripts)
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def _run(words: Sequence[str]) -> tuple[float, float]:
    before, began = _children(), time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True)  # noqa: S603  (as above)
    wall = time.perf_counter() - began
    spent = _children() - before
    return (spent or wall), wall


def _children() -> float:
    """Processor seconds of all finished child processes; 0 where the system does not count them."""
    if sys.platform == "win32":
        return 0.0
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
