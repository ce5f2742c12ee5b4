"""`apd-bench doctor`: what this machine has and what it lacks, with what to do about each problem.

Imports no torch itself: torch, torchvision and open_clip are tried in another process (`heavy_imports.py`).
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires
from itertools import chain
from pathlib import Path
from typing import Any

from apd_bench import __version__
from apd_bench.cli.console import err, out, out_json
from apd_bench.core.cache import CACHE_VARIABLE, cache_root
from apd_bench.core.errors import EXIT_DONE, EXIT_USAGE, UserError
from apd_bench.core.files import usable_cores
from apd_bench.core.package_data import package_path
from apd_bench.core.registry import DATASETS, REGISTRIES
from apd_bench.core.text import table
from apd_bench.data.cards import cards
from apd_bench.data.check import READY, check_set
from apd_bench.data.places import DATA_VARIABLE, data_roots, find_places
from apd_bench.records.environment import installed

OK, NOTE, PROBLEM = "ok", "note", "problem"
PROBE_SECONDS = 300
LITTLE_SPACE = 2e9
EXTRAS = {  # by package: what it is for, and the extra that brings it
    "torchattacks": ("more attacks under torchattacks:NAME", "torchattacks"),
    "ray": ("several machines or GPUs", "ray"),
    "matplotlib": ("plots", "plots"),
}
REINSTALL = "pip install --force-reinstall --no-deps apd-bench"
PAIR_FIX = "Install both at once and from one place: pip install --upgrade --force-reinstall torch torchvision"
EXAMPLES = """examples:
  apd-bench doctor          every finding, then what to do
  apd-bench doctor --json   the same for a program

exit code: 0 without a problem, 2 with one.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


@dataclass(frozen=True)
class Remark:
    """One finding: what was looked at, how it is, and what mends it where it is a problem."""

    area: str
    name: str
    state: str
    detail: str
    fix: str = ""


def examine(*, seconds: float = PROBE_SECONDS) -> list[Remark]:
    """Every finding about this machine, in the order in which they are best read."""
    here = (_packages(), judge_probe(run_probe(seconds)))
    return [*chain(*here, _extras(), _registries(), _embedded(), _data(), _cache(), _environment())]


def run_probe(seconds: float = PROBE_SECONDS) -> dict[str, dict[str, Any]]:
    """What `heavy_imports.py` says about torch, torchvision and open_clip; "process" tells of a crash or a hang."""
    # As text rather than as a file: a script's own folder would come first on the import path.
    command = [sys.executable, "-W", "ignore", "-c", package_path("cli", "heavy_imports.py").read_text("utf-8")]
    ending = ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)  # noqa: S603
        written = done.stdout
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [""])[-1]
            ending = f"the import ended the process with code {done.returncode} {last}".rstrip()
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or ""
        written = output.decode() if isinstance(output, bytes) else output
        ending = f"the import did not end within {seconds:.0f} seconds"
    entries = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    return {entry["name"]: entry for entry in entries} | ({"process": {"error": ending}} if ending else {})


def judge_probe(found: dict[str, dict[str, Any]]) -> Iterator[Remark]:
    """Findings about torch, its devices, torchvision beside it, and open_clip."""
    untried = {"error": found.get("process", {}).get("error", "it was not tried")}
    torch, vision, clip = (found.get(name, untried) for name in ("torch", "torchvision", "open_clip"))
    if "error" in torch:
        yield Remark("packages", "torch", PROBLEM, torch["error"], "Install it: pip install torch torchvision")
        return
    facts = torch["facts"]
    yield Remark("packages", "torch", OK, f"{facts['version']}, {facts['threads']} threads")
    yield from _devices(facts)
    pair = f"torch {facts['version']}"
    if "error" in vision:
        detail = f"{installed('torchvision') or 'not installed'} beside {pair}: {vision['error']}"
        yield Remark("packages", "torchvision", PROBLEM, detail, PAIR_FIX)
    elif len({text.partition("+")[2] for text in (facts["version"], vision["facts"]["version"])} - {""}) > 1:
        detail = f"{vision['facts']['version']} beside {pair}: built for different devices"
        yield Remark("packages", "torchvision", PROBLEM, detail, PAIR_FIX)
    else:
        yield Remark("packages", "torchvision", OK, f"{vision['facts']['version']} works beside {pair}")
    if "error" in clip:
        fix = PAIR_FIX if "error" in vision else "pip install --upgrade open_clip_torch"
        yield Remark("packages", "open_clip", PROBLEM, clip["error"], fix)
    else:
        known = f"{clip['facts']['version']}, {clip['facts']['architectures']} architectures"
        yield Remark("packages", "open_clip", OK, known)


def _devices(facts: dict[str, Any]) -> Iterator[Remark]:
    yield Remark("devices", "cpu", OK, f"{usable_cores()} cores usable")
    for index, device in enumerate(facts["cuda"]):
        yield Remark("devices", f"cuda:{index}", OK, f"{device['name']}, {device['memory'] / 2**30:.0f} GiB")
    if facts["mps"]:
        yield Remark("devices", "mps", OK, "Apple GPU")
    if not facts["cuda"] and shutil.which("nvidia-smi"):
        fix = "Install a CUDA build of torch that fits the driver (nvidia-smi shows which)."
        build = f"built for CUDA {facts['cuda_build']}" if facts["cuda_build"] else "built without CUDA"
        yield Remark("devices", "cuda", PROBLEM, f"there is an NVIDIA driver, but torch ({build}) sees no GPU", fix)
    elif not facts["cuda"]:
        yield Remark("devices", "cuda", NOTE, "no GPU; the embedded suite does not need one")


def _packages() -> Iterator[Remark]:
    text = f"{platform.python_version()} ({platform.system()} {platform.machine()}), apd-bench {__version__}"
    yield Remark("packages", "python", OK, text)
    try:
        wanted = requires("apd-bench") or []
    except PackageNotFoundError:
        yield Remark("packages", "apd-bench", NOTE, "run from a source tree that is not installed", "pip install -e .")
        return
    for requirement in wanted:
        text, _, marker = requirement.partition(";")
        match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?:>=\s*([0-9.]+))?", text)
        if match is None or "extra" in marker or "python_version" in marker or match[1] == "torch":
            continue
        found, least = installed(match[1]), match[2] or ""
        if found is not None and _numbers(found) >= _numbers(least):
            yield Remark("packages", match[1], OK, found)
        else:
            detail = "not installed" if found is None else f"{found}, needed is {least}"
            yield Remark("packages", match[1], PROBLEM, detail, f"pip install '{text.strip()}'")


def _extras() -> Iterator[Remark]:
    for name, (use, extra) in EXTRAS.items():
        found = installed(name)
        fix = "" if found else f"pip install 'apd-bench[{extra}]'"
        yield Remark("extras", name, OK if found else NOTE, found or f"not installed ({use})", fix)


def _registries() -> Iterator[Remark]:
    for registry in REGISTRIES:
        try:
            yield Remark("registry", f"{registry.kind}s", OK, f"{len(registry.names())} known")
        except UserError as error:
            yield Remark("registry", f"{registry.kind}s", PROBLEM, error.message, error.hint)


def _embedded() -> Iterator[Remark]:
    try:
        specs = [spec for spec in DATASETS if spec.group == "embedded"]
    except UserError:
        return  # reported with the registries
    findings = [check_set(spec, ()) for spec in specs]
    broken = [finding.message for finding in findings if finding.state != READY]
    if broken or not findings:
        yield Remark("embedded", "datasets", PROBLEM, "; ".join(broken) or "the package holds none", REINSTALL)
    else:
        yield Remark("embedded", "datasets", OK, f"{len(findings)} sets, checksums right")
    models = sorted(path.stem for path in package_path("embedded", "models").glob("*.safetensors"))
    state, fix = (OK, "") if models else (PROBLEM, REINSTALL)
    yield Remark("embedded", "models", state, ", ".join(models) or "the package holds none", fix)


def _data() -> Iterator[Remark]:
    roots = data_roots()
    written = os.environ.get(DATA_VARIABLE, "").strip()
    for root in roots:
        if not root.is_dir():
            state = PROBLEM if written else NOTE
            needed = "" if written else " (only needed beyond the embedded suite)"
            fix = f"Set {DATA_VARIABLE} to the folder that holds your sets{needed}."
            yield Remark("data", str(root), state, "there is no such folder", fix)
        elif not os.access(root, os.R_OK | os.X_OK):
            yield Remark("data", str(root), PROBLEM, "it cannot be read", "Mend its permissions.")
        else:
            there = [card.name for card in cards().values() if find_places(card, (root,))]
            detail = f"{len(there)} of {len(cards())} known sets: {', '.join(there) or 'none'}"
            yield Remark("data", str(root), OK if there else NOTE, detail, "apd-bench datasets check")


def _cache() -> Iterator[Remark]:
    root = cache_root()
    if root is None:
        yield Remark("cache", "images", NOTE, f"switched off by {CACHE_VARIABLE}=none: images are decoded each time")
        return
    fix = f"Set {CACHE_VARIABLE} to a folder that you can write to, or to 'none'."
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".doctor-") as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        yield Remark("cache", str(root), PROBLEM, f"cannot be written: {error.strerror or error}", fix)
        return
    free = shutil.disk_usage(root).free
    state = OK if free > LITTLE_SPACE else PROBLEM
    yield Remark("cache", str(root), state, f"writable, {free / 1e9:.1f} GB free", "" if state == OK else fix)


def _environment() -> Iterator[Remark]:
    here = Path.cwd()
    if not os.access(here, os.W_OK):
        yield Remark("environment", "results", PROBLEM, f"{here} cannot be written", "Use --results DIR.")
    for name in sorted(os.environ):
        if name.startswith("APD_BENCH_"):
            yield Remark("environment", name, OK, os.environ[name])
    for name in ("HF_HOME", "HF_HUB_OFFLINE", "TORCH_HOME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        if name in os.environ:
            offline = name == "HF_HUB_OFFLINE" and os.environ[name] not in ("", "0")
            remark = " (weights must be in the cache already)" if offline else ""
            yield Remark("environment", name, NOTE if offline else OK, f"{os.environ[name] or 'empty'}{remark}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])
