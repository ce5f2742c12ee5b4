"""How fast the command answers: verbs that need no model beside a command that imports torch first."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from tests.benchmarks.table import Row

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


def rows(quick: bool, device: str) -> Iterator[Row]:
    """Every command beside importing torch and open_clip (what the usual entry script does first) and bare Python.

    The seconds are those of the processor, of the process and its children; the shortest wall time is among the facts.
    """
    sides = {**COMMANDS, "usual": USUAL, "bare": BARE}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for repeat in range(2 if quick else 6):
        for name, words in sides.items():
            spent = _run(words)
            if repeat:
                seconds[name].append(spent)
    cost = {name: tuple(processor for processor, _ in pairs) for name, pairs in seconds.items()}
    for name, words in COMMANDS.items():
        facts = {
            "bare Python s": round(min(cost["bare"]), 3),
            "shortest wall s": round(min(wall for _, wall in seconds[name]), 3),
            "imports": " ".join(imported(words)) or "none of them",
        }
        yield Row(part="startup", what=name, ours=cost[name], usual=cost["usual"], facts=facts)


def imported(words: Sequence[str]) -> list[str]:
    """Which of the HEAVY packages a command imports."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return [name for name in HEAVY if name in modules]


def _run(words: Sequence[str]) -> tuple[float, float]:
    """Seconds of the processor (of the wall where the system does not count them), and of the wall."""
    before, began = _children(), time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    wall = time.perf_counter() - began
    return (_children() - before) or wall, wall


def _children() -> float:
    if sys.platform == "win32":
        return 0.0
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
