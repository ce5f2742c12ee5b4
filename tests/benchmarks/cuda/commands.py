"""Commands of the program on the GPU, as a user gives them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import apd_bench
from tests.benchmarks.cuda.checks import Bench, Wrong, check, each


def cli(b: Bench, *words: str, folder: str | Path, timeout: float) -> str:
    """The last lines of a command of the program; raises Wrong where it fails."""
    began = time.perf_counter()
    root = str(Path(apd_bench.__file__).parent.parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "apd_bench", *words, "--device", b.device, "--display", "none"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout)
    lines = (done.stdout + done.stderr).replace(f"{root}{os.sep}", "").strip().splitlines() or [""]
    if done.returncode:
        raise Wrong(f"exit {done.returncode}: {' '.join(lines[-8:])[-600:]}")
    return f"{time.perf_counter() - began:.0f} s: {lines[-1][:100]}"


@check("run: twice, and two jobs on one GPU", 60)
def runs(b: Bench) -> dict[str, Any]:
    grid = (
        "run --methods zero_shot,advvlp,apd --datasets fashion --attacks pgd(steps=10) worst.fast(steps=10) "
        f"--eps 3/255 --seeds 1 --shots 2 --limit {4 if b.small else 60} --set training.epochs=1 --no-reference"
    ).split()
    ways = {
        "first": ("--results", "r", "--shard", "30"),
        "again": ("--results", "r"),
        "two jobs": ("--results", "r2", "--jobs", "2"),
    }
    with tempfile.TemporaryDirectory() as folder:
        facts = each({name: partial(cli, b, *grid, *words, folder=folder, timeout=200) for name, words in ways.items()})
        seen = json.loads(next(Path(folder, "r", "cells").glob("*/*.json")).read_bytes())["environment"]
    return facts | {"environment": {key: seen.get(key) for key in ("device", "device_name", "cuda", "tf32")}}


@check("run: a defence that knows the prompts' training images", 20)
def defended(b: Bench) -> dict[str, Any]:
    words = (
        "run --methods vpt --datasets fashion --defences tapt(views=4) --attacks "
        "adaptive(iterations=2,near=1,targets=1,draws=1,queries=2) pgd(steps=3) --eps 3/255 --seeds 1 --shots 2 "
        f"--limit {2 if b.small else 8} --set training.epochs=1 --no-reference"
    )
    with tempfile.TemporaryDirectory() as folder:
        facts = {"fit and cells": cli(b, *words.split(), folder=folder, timeout=120)}
        records = [json.loads(path.read_bytes()) for path in Path(folder).glob("results/cells/*/*.json")]
        facts["cells"] = len([record for record in records if record["cell"].get("defence")])
    if facts["cells"] != 2:
        raise Wrong(f"two cells with a defence were asked for: {facts}")
    return facts


@check("verify: 70 stored values of a CPU", 60)
def verify(b: Bench) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {"verify": cli(b, "verify", folder=folder, timeout=180)}


@check("a whole cell of fap-fewshot, ViT-B/16 *", 60)
def whole(b: Bench) -> dict[str, Any]:
    size = "--shots 2 --limit 4 --set training.epochs=1" if b.small else "--shots 16 --limit 100"
    words = (
        f"run --suite fap-fewshot --methods fap --backbone {b.big} --datasets fashion --seeds 1 --no-reference {size}"
    )
    with tempfile.TemporaryDirectory() as folder:
        facts = {"fit and cells": cli(b, *words.split(), folder=folder, timeout=max(b.ends - time.time(), 20))}
        for path in Path(folder).glob("results/cells/*/*.json"):
            record = json.loads(path.read_bytes())
            facts[record["cell"]["attack"]["name"]] = (
                f"{record['timing']['seconds']:.1f} s, fit {record['fit']['seconds']:.0f} s"
            )
    return facts
