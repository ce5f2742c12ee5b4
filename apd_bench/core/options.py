"""The options of a run, each written once, as a field of `RunOptions`.

From that table are made the command line of `run`, `plan`, `fit` and `verify`, the variables `APD_BENCH_<OPTION>`, the
table [options] of a suite, and the arguments of `apd_bench.run`.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from apd_bench.core.errors import UsageError, unknown_name
from apd_bench.core.gpus import GPUS

# What carries out the work: by name the function that makes it, and the package that it needs (extra of the same name).
EXECUTORS = {
    "local": ("apd_bench.runner.session:local_executor", ""),
    "ray": ("apd_bench.runner.ray_executor:executor_for", "ray"),
    "slurm": ("apd_bench.runner.slurm_executor:executor_for", "submitit"),
}
_LONGEST = 100_000  # numbers of a range
# The options that --help shows; --help-all shows the others too.
COMMON = ("backbones", "methods", "datasets", "attacks", "eps", "seeds", "limit", "results", "data", "device")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")
WHAT = "what to measure (lists by comma or space; 'all', wildcards, '!name' excludes)"
WHERE, WHICH, HOW, DISPLAY = "where", "which cells (default: all that have no success yet)", "how", "display"


@dataclass(frozen=True)
class Spelling:
    """Where a value was written: what the option is called there, and how a value of it is written (`{}`)."""

    label: str
    written: str

    def refuse(self, wanted: str, value: object, example: str) -> UsageError:
        """The error for a value that is not what is wanted."""
        return UsageError(f"{self.label} takes {wanted}, not '{value}'.", hint=f"Write {self.written.format(example)}.")


Reader = Callable[[Any, Spelling], Any]


@dataclass(frozen=True)
class Option:
    """One option: how its value is read (from text or Python), what it means, and where it may stand."""

    read: Reader
    help: str
    group: str
    flag: str = ""
    more_flags: tuple[str, ...] = ()
    metavar: str | None = None
    name: str = ""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "APD_BENCH_" + self.flag.removeprefix("--").replace("-", "_").upper()

    def at(self, place: str) -> Spelling:
        """The option as it is written in one of the places: flag, variable, suite, python."""
        return {
            "flag": Spelling(self.flag, f"{self.flag} {{}}"),
            "variable": Spelling(self.variable, f"{self.variable}={{}}"),
            "suite": Spelling(f"'{self.name}' in [options]", f'{self.name} = "{{}}"'),
            "python": Spelling(self.name, f'{self.name}="{{}}"'),
        }[place]


def text(value: Any, source: Spelling) -> str:
    """A name."""
    if not isinstance(value, (str, os.PathLike)):
        raise source.refuse("text", value, "NAME")
    return str(value)


def path(value: Any, source: Spelling) -> Path:
    """A folder or a file."""
    return Path(text(value, source))


def device(value: Any, source: Spelling) -> str:
    """The name of a kind of device, perhaps with a number; whether it is there, the run finds out."""
    name = text(value, source)
    if not re.fullmatch(r"cpu|mps|(cuda|xpu)(:\d+)?", name):
        raise UsageError(f"Device '{name}' is not one of: cpu, cuda, cuda:N, xpu.", hint="Use --device cpu.")
    return name


def switch(value: Any, source: Spelling) -> bool:
    """Whether something is wanted."""
    word = str(value).lower()
    if word not in TRUE + FALSE:
        raise source.refuse("true or false", value, "1")
    return word in TRUE


def texts(value: Any, source: Spelling) -> tuple[str, ...]:
    """A list whose items are taken as they are."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise source.refuse("a list", value, "KEY=VALUE")
    return tuple(text(item, source) for item in items)


def names(value: Any, source: Spelling) -> tuple[str, ...]:
    """A list of names or numbers, as one text or one after the other; what stands in one text is split later."""
    items = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return tuple(str(item) for item in items)


def numbers(least: int, *also: int) -> Reader:
    """A list of whole numbers of at least `least`, or ranges such as 1-5, or of the numbers `also`."""

    def read(value: Any, source: Spelling) -> tuple[int, ...]:
        found: list[int] = []
        for item in re.findall(r"[^\s,]+", " ".join(names(value, source))):
            span = re.fullmatch(r"(\d{1,18})-(\d{1,18})", item)
            if span and int(span[1]) > int(span[2]):
                turned = f"{span[2]}-{span[1]}"
                raise UsageError(
                    f"{source.written.format(item)} runs backwards.", hint=f"Write {source.written.format(turned)}."
                )
            if not span and not re.fullmatch(r"-?\d{1,18}", item):
                raise source.refuse("whole numbers", item, "1,2,3")
            first = int(span[1] if span else item)
            if first < least and first not in also:
                raise source.refuse(f"whole numbers of at least {least}", item, "1,2,3")
            if span and int(span[2]) - first >= _LONGEST:
                raise source.refuse(f"at most {_LONGEST:,} numbers", item, "1-5")
            found += range(first, int(span[2]) + 1) if span else [first]
        return tuple(found)

    return read


def count(what: str, example: int, **words: int | None) -> Reader:
    """A number of at least 1, or one of `words` with what it stands for."""

    def read(value: Any, source: Spelling) -> int | None:
        if isinstance(value, str) and value in words:
            return words[value]
        if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,18}", str(value)) or int(value) < 1:
            also = "".join(f" or '{word}'" for word in words)
            raise source.refuse(f"a number of {what}{also}", value, str(example))
        return int(value)

    return read


def fraction(value: Any, source: Spelling) -> tuple[int, int]:
    """A part of a whole, as 3/8 or (3, 8)."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value if isinstance(value, str) else "/".join(names(value, source)))
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise source.refuse("a part of a whole", value, "3/8")
    return int(match[1]), int(match[2])


def choice(*allowed: str) -> Reader:
    """One of a few words."""

    def read(value: Any, source: Spelling) -> str:
        if value not in allowed:
            raise unknown_name(f"value of {source.label}", str(value), allowed)
        return str(value)

    return read


def option(default: Any, read: Reader, group: str, help: str, **more: Any) -> Any:
    """A field of `RunOptions`; a value needs a `metavar`, but for switches, `names` (LIST) and a `path` (DIR)."""
    metavar = "LIST" if read is names else "DIR" if read is path else None
    return field(default=default, metadata={"option": Option(read, help, group, **{"metavar": metavar, **more})})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """All that a run can be told, with defaults; None leaves it to the suite or to the machine."""

    suite: str = option(
        "embedded", text, WHAT, "the declared grid to start from", more_flags=("--grid",), metavar="NAME|FILE"
    )
    backbones: tuple[str, ...] | None = option(
        None, names, WHAT, "image-text models: names, hf-hub:ORG/NAME, local:FILE@ARCHITECTURE", flag="--backbone",
        more_flags=("--backbones",),
    )  # fmt: skip
    methods: tuple[str, ...] | None = option(
        None, names, WHAT, "prompt methods: names, FILE.py:NAME, a folder of prompts, hf://ORG/REPO"
    )
    datasets: tuple[str, ...] | None = option(
        None, names, WHAT, "names, or folder:PATH for images of your own; 'all' means all of the suite"
    )
    attacks: tuple[str, ...] | None = option(
        None, names, WHAT, "with options where wanted: 'pgd(steps=100)'; `apd-bench show pgd` has their units"
    )
    defences: tuple[str, ...] | None = option(
        None,
        names,
        WHAT,
        "test-time defences, each over every method: ttc,'r_tpt(views=16)', FILE.py:NAME; attacked by adaptive, too",
    )
    eps: tuple[str, ...] | None = option(None, names, WHAT, "budgets in [0,1] pixel units, as 4/255 or 0.0157; L2: 0.5")
    seeds: tuple[int, ...] | None = option(None, numbers(0), WHAT, "whole numbers, or a range as 1-5", metavar="LIST")
    shots: tuple[int, ...] | None = option(
        None, numbers(1, -1), WHAT, "training images per class; -1 for all", metavar="LIST"
    )
    limit: int | None = option(
        None, count("samples", 20, all=0), WHAT, "test samples per dataset, with fixed ids; 'all' for all", metavar="N"
    )
    no_reference: bool = option(False, switch, WHAT, "leave out the suite's reference methods")
    settings: tuple[str, ...] = option(
        (), texts, WHAT, "one setting: training.epochs=5, apd.objective.temperature=2, precision=bf16", flag="--set",
        metavar="KEY=VALUE",
    )  # fmt: skip
    part: tuple[int, int] | None = option(
        None, fraction, WHAT, "one of N parts of the grid, recorded in RESULTS/K-of-N; fits are not trained twice",
        metavar="K/N",
    )  # fmt: skip
    results: Path = option(Path("results"), path, WHERE, "the folder of records")
    data: Path | None = option(None, path, WHERE, "the folder of the real datasets (default: $APD_BENCH_DATA)")
    boards: Path = option(Path("leaderboards"), path, WHERE, "where the leaderboards are written")
    offline: bool = option(False, switch, WHERE, "never use the network")
    missing: bool = option(False, switch, WHICH, "only those without any record: leaves failed ones alone")
    failed: bool = option(False, switch, WHICH, "only those that failed or were cancelled")
    force: bool = option(False, switch, WHICH, "all, even those that are done")
    cached_only: bool = option(False, switch, WHICH, "none: only write the boards from what is stored")
    dry_run: bool = option(False, switch, HOW, "show the plan, compute nothing")
    jobs: int | None = option(
        None, count("processes", 2), HOW,
        "worker processes, on CUDA on each GPU (default: the number of cores for tiny models on a CPU, else 1)",
        metavar="N",
    )  # fmt: skip
    device: str | None = option(
        None, device, HOW, "cpu, cuda (every visible GPU), cuda:1 (default: cuda where there is one)", metavar="NAME"
    )
    batch_size: int | None = option(
        None, count("images", 32, auto=None), HOW,
        "images per batch, or 'auto' (default): on CUDA the largest power of two whose measured memory fits, else 100 "
        "of a tiny model and 32 of others; halved when memory runs out", metavar="N",
    )  # fmt: skip
    shard: int = option(
        500, count("samples", 500), HOW,
        "measure larger cells in parts of about N samples, which are kept and merged", metavar="N",
    )  # fmt: skip
    executor: str = option(
        "local", choice(*EXECUTORS), HOW, "where the work is done", metavar=f"{{{','.join(EXECUTORS)}}}"
    )
    address: str | None = option(
        None, text, HOW, "of a Ray cluster (default: start one here)", metavar="HOST:PORT|auto"
    )
    slurm: tuple[str, ...] = option(
        (), texts, HOW, "options of sbatch for --executor slurm: partition=gpu,gres=gpu:1,time=4:00:00",
        metavar="KEY=VALUE,...",
    )  # fmt: skip
    calibrate: bool = option(False, switch, HOW, "with a plan: time the backbones on this machine first")
    gpu: str | None = option(
        None, choice(*GPUS), HOW, "with a plan: estimate the hours on this GPU from the arithmetic of the models",
        metavar=f"{{{','.join(GPUS)}}}",
    )  # fmt: skip
    wait: bool = option(False, switch, HOW, "wait for another run on the same folder instead of refusing")
    display: str = option(
        "auto", choice("auto", "rich", "plain", "json", "none"), DISPLAY,
        "how progress is shown: rich on a terminal, else plain", metavar="{auto,rich,plain,json,none}",
    )  # fmt: skip
    log: Path | None = option(
        None, path, DISPLAY, "add losses and progress to this file, one JSON object a line; read by `apd-bench log`",
        metavar="FILE.jsonl",
    )  # fmt: skip
    verbose: bool = option(False, switch, DISPLAY, "show tracebacks of failed cells", more_flags=("-v",))
    quiet: bool = option(False, switch, DISPLAY, "no progress", more_flags=("-q",))

    @property
    def store(self) -> Path:
        """The folder of records of this run: a part of the grid has one of its own in `results`."""
        return self.results if self.part is None else self.results / "{}-of-{}".format(*self.part)

    @property
    def strategy(self) -> str:
        """Which cells are worked on, as one word."""
        otherwise = "cached" if self.cached_only else "unfinished"
        return next((name for name in ("missing", "failed", "force") if getattr(self, name)), otherwise)


def table() -> dict[str, Option]:
    """All options by name, in the order of their declaration."""
    found = {}
    for item in fields(RunOptions):
        declared: Option = item.metadata["option"]
        flag = declared.flag or f"--{item.name.replace('_', '-')}"
        said = item.default in (None, False, ()) or "(default" in declared.help
        text = declared.help if said else f"{declared.help} (default: {item.default})"
        found[item.name] = replace(declared, name=item.name, flag=flag, help=text)
    return found


def resolve_options(given: Mapping[str, Any], suite: Mapping[str, Any]) -> RunOptions:
    """The options of a command: what is `given` on it, below that the environment, below that the suite's [options]."""
    values = {}
    for name, item in table().items():
        if name in given:
            values[name] = item.read(given[name], item.at("flag"))
        elif item.variable in os.environ:
            values[name] = item.read(os.environ[item.variable], item.at("variable"))
        elif name in suite:
            values[name] = item.read(suite[name], item.at("suite"))
    return RunOptions(**values)


def options_from_python(given: Mapping[str, Any]) -> RunOptions:
    """The options of a call; None stands for the default. Raises UnknownName or UsageError as the command line does."""
    known = table()
    for name in given:
        if name not in known:
            raise unknown_name("option of run", name, known)
    chosen = {name: value for name, value in given.items() if value is not None}
    return RunOptions(**{name: known[name].read(value, known[name].at("python")) for name, value in chosen.items()})


def check_suite_options(written: Mapping[str, Any]) -> None:
    """Raises UnknownName or UsageError unless all of a suite's table [options] can be read."""
    known = {name: item for name, item in table().items() if item.group != WHAT}
    for name, value in written.items():
        if name not in known:
            raise unknown_name("option in a suite's [options]", name, known, command="apd-bench run --help")
        known[name].read(value, known[name].at("suite"))
