"""What the host waits for, what the device holds, and what happens when its memory is full."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

import apd_bench
from apd_bench.attacks.meter import Meter
from apd_bench.attacks.parse import parse_attack
from apd_bench.backbones.load import load_backbone
from apd_bench.core.registry import BACKBONES, DATASETS
from apd_bench.core.specs import Cell, Fit, ThreatModel
from apd_bench.data.moving import moved
from apd_bench.evaluation.cell import evaluate_samples
from apd_bench.evaluation.progress import Account
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.classifier import matmul_precision
from apd_bench.runner import stages
from apd_bench.runner.batches import CudaMemory, free_memory, largest_batch
from apd_bench.runner.tasks import Settings, Task
from tests.benchmarks.cuda.checks import TINY, Bench, Skip, Wrong, check, gradient
from tests.benchmarks.models import made_up, zero_shot


@check("host waits *", 8)
def waits(b: Bench) -> dict[str, Any]:
    if not b.cuda or b.small:
        raise Skip("needs a GPU")
    model, test = zero_shot(load_backbone(TINY, b.device), "animals", 32)
    facts = {}
    for text, steps in (("pgd(steps=40)", 40), ("apgd-ce(steps=40)", 40), ("worst.fast", 41)):
        for mode in ("default", "warn"):
            torch.cuda.set_sync_debug_mode(mode)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                evaluate_samples(model, test, parse_attack(text), ThreatModel(eps=2 / 255), device=b.device)
        torch.cuda.set_sync_debug_mode("default")
        places = Counter(
            f"{Path(item.filename).name}:{item.lineno}" for item in caught if "synchroniz" in str(item.message)
        )
        facts[text] = f"{places.total()} in about {steps} gradients: {dict(places.most_common(5))}"
    return facts


@check("the meter's clock, batches read ahead", 8)
def clocks(b: Bench) -> dict[str, Any]:
    part = made_up(load_backbone(b.big, b.device), 2 if b.small else 32)
    Meter(part.classifier).gradient(part.pixels, lambda z: z.logsumexp(1))
    meter = Meter(part.classifier)
    b.wait()
    began = time.perf_counter()
    for _ in range(10):
        meter.gradient(part.pixels, lambda z: z.logsumexp(1))
    inside = meter.seconds
    outside = time.perf_counter() - began

    def read(item: int) -> Tensor:
        return torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(item))

    busy, wrong = torch.rand(1024, 1024, device=b.device), []
    for item, batch in enumerate(moved(read, list(range(4 if b.small else 40)), torch.device(b.device))):
        for _ in range(20):
            busy = F.normalize(busy @ busy)
        if not torch.equal(batch.cpu(), read(item)):
            wrong.append(item)
    if wrong or not 0.7 < inside / outside < 1.1:
        raise Wrong(f"damaged batches {wrong}; meter {inside:.3f} s, wall {outside:.3f} s")
    return {"meter / wall": round(inside / outside, 3)}


@check("memory: held per image, auto batch, out of memory", 30)
def memory(b: Bench) -> dict[str, Any]:
    if not b.cuda:
        raise Skip("needs a GPU")
    facts: dict[str, Any] = {"held per image, bytes": _growth(b)}
    free_memory()
    part = made_up(load_backbone(b.big, b.device), 1)
    size = part.pixels.shape[-1]
    with matmul_precision("fp32"):
        for precision in ("fp32", "bf16"):
            net = part.classifier.in_precision(precision)
            found = largest_batch(CudaMemory(net, size, b.device), size)
            x = torch.rand(found.size, 3, size, size, device=b.device)
            torch.cuda.reset_peak_memory_stats(b.device)
            seconds = b.seconds(lambda net=net, x=x: gradient(net, x), 1)
            share = torch.cuda.max_memory_allocated(b.device) / torch.cuda.mem_get_info(b.device)[1]
            speed = f"{1000 * seconds / len(x):.3f} ms an image"
            facts[f"auto batch in {precision}"] = f"{found.size}, peak {100 * share:.0f} % of the device, {speed}"
            del x
            free_memory()
    return facts | _halved(b)


def _growth(b: Bench) -> int:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 10)).to(b.device)
    data = torch.rand(800, 3, 64, 64), torch.zeros(800, dtype=torch.int64)
    held: list[int] = []
    plain = Account.finish

    def finish(self: Account, *arguments: Any) -> None:
        plain(self, *arguments)
        held.append(torch.cuda.memory_allocated(b.device))

    with patch.object(Account, "finish", finish):
        apd_bench.evaluate(model, data, "pgd(steps=1)", 1e-4, batch_size=100)
    grown = (held[-1] - held[1]) // (100 * (len(held) - 2))
    if grown > 4096:
        raise Wrong(f"{grown} bytes of each image of {3 * 64 * 64 * 4} stay on the device")
    return grown


def _halved(b: Bench) -> dict[str, Any]:
    """A worker with too large a batch on a nearly full device."""
    with tempfile.TemporaryDirectory() as name:
        bench = stages.Stages(Settings(fits=f"{name}/fits", checkpoints=f"{name}/c", device=b.device, batch_size=512))
        data = DATASETS.get("fashion")
        fit = Fit(backbone=BACKBONES.get(TINY), method=load_recipe("zero_shot"), dataset=data, seed=1, shots=1)
        folder = Path(name) / "fits" / fit.id
        folder.mkdir(parents=True)
        for file, content in bench.run(Task(fit=fit), lambda p: None).files.items():  # type: ignore[union-attr]
            (folder / file).write_bytes(content)
        cell = Cell(fit=fit, dataset=data, attack=parse_attack("pgd(steps=2)"), threat=ThreatModel(eps=2 / 255))
        bench.run(Task(fit=fit, cell=cell), lambda p: None)
        free_memory()
        torch.cuda.reset_peak_memory_stats(b.device)
        before = torch.cuda.memory_reserved(b.device)
        bench.run(Task(fit=fit, cell=cell), lambda p: None)
        need = torch.cuda.max_memory_reserved(b.device) - before
        free_memory()
        ballast = torch.empty(torch.cuda.mem_get_info(b.device)[0] - need // 2, dtype=torch.uint8, device=b.device)
        harder = replace(cell, attack=parse_attack("worst.fast(steps=3)"))
        try:
            done = bench.run(Task(fit=fit, cell=harder), lambda p: None)
        finally:
            del ballast
            bench.close()
            free_memory()
    facts = {key: done.effective.get(key) for key in ("batch_size", "out_of_memory")}  # type: ignore[union-attr]
    if not facts["out_of_memory"]:
        raise Wrong(f"memory never ran out: {facts}, {need >> 20} MiB needed")
    return {"half the memory that batch 512 needs": facts}
