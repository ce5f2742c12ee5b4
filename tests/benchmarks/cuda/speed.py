"""Seconds on the GPU: loops against their bare passes, training steps, AutoAttack, precisions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from apd_bench.attacks.parse import parse_attack
from apd_bench.attacks.projections import _draw_all
from apd_bench.backbones.load import load_backbone
from apd_bench.core.specs import ThreatModel
from apd_bench.evaluation.cell import evaluate_samples
from apd_bench.prompts.classifier import matmul_precision
from tests.benchmarks.attacks import loop_row, pairs
from tests.benchmarks.cuda.checks import H100_FP32, PRECISIONS, TINY, VIT_FLOPS, Bench, check, gradient
from tests.benchmarks.models import VIT_B16, attack, made_up, zero_shot
from tests.benchmarks.table import Row, markdown
from tests.benchmarks.train import train_row


def rows(b: Bench) -> Iterator[Row]:
    """Speed as the other benchmarks measure it: both sides in turn."""
    for name, batch, steps in ((TINY, 4, 2),) if b.small else ((TINY, 64, 20), (VIT_B16, 64, 10)):
        yield loop_row(load_backbone(name, b.device), batch=batch, steps=steps, repeats=3)
    for batch in (2,) if b.small else (4, 32):
        yield train_row(load_backbone(b.big, b.device), batch, classes=10 if b.small else 100)
    if not b.small:
        samples = made_up(load_backbone(VIT_B16, b.device), 64, classes=100)
        yield from pairs(VIT_B16, [samples], 4 / 255, steps=20, trained=False)


@check("speed *", 60)
def speed(b: Bench) -> dict[str, Any]:
    with matmul_precision("fp32"):
        table = list(rows(b))
    facts: dict[str, Any] = {"table": markdown(table)}
    part = made_up(load_backbone(b.big, b.device), 2 if b.small else 128)
    for precision in PRECISIONS:
        net = part.classifier.in_precision(precision)
        with matmul_precision(precision):
            spent = b.seconds(partial(gradient, net, part.pixels)) / len(part.pixels)
        facts[f"gradient in {precision}"] = f"{1000 * spent:.3f} ms an image"
        if precision == "fp32" and not b.small:
            facts["of an H100's fp32 peak"] = f"{100 * VIT_FLOPS / spent / H100_FP32:.0f} %"
    shape, count = torch.Size((3, 224, 224)), 4 if b.small else 64
    for threads in (1, 8):
        spent = b.seconds(partial(_draw_all, shape, "Linf", range(count), threads=threads)) / count
        facts[f"random start, {threads} threads"] = f"{1000 * spent:.2f} ms an image"
    return facts


@check("AutoAttack on ViT-B/16 *", 40)
def library(b: Bench) -> dict[str, Any]:
    part = made_up(load_backbone(b.big, b.device), 2 if b.small else 32, classes=100)
    text = f"autoattack({'iterations=2,queries=3,targets=2' if b.small else 'iterations=20,queries=200,targets=3'})"
    with matmul_precision("fp32"):
        began = time.perf_counter()
        result = attack(text, part, ThreatModel(eps=1e-6))
        b.wait()
        spent = time.perf_counter() - began
        bare = b.seconds(lambda: gradient(part.classifier, part.pixels)) / len(part.pixels)
    passes = (result.forwards / 3 + result.backwards * 2 / 3) * bare
    share = f"{100 * passes / spent:.0f} %"
    return {"s": round(spent, 1), "passes alone, s": round(passes, 1), "of it in the passes": share, "attack": text}


@check("verdicts in tf32 and bf16 *", 15)
def precisions(b: Bench) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, eps in ((TINY, 2 / 255), ("tiny-robust", 4 / 255)):
        model, test = zero_shot(load_backbone(name, b.device), "animals", 6 if b.small else 200)
        for text in ("pgd", "cw"):
            how = {"batch_size": 100, "device": b.device}
            given = test, parse_attack(text), ThreatModel(eps=eps)
            found = {p: evaluate_samples(model.in_precision(p), *given, precision=p, **how) for p in PRECISIONS}
            base = found["fp32"].outcomes.broken
            facts[f"{text} on {name}, {len(base)} images, verdicts changed"] = {
                p: f"{int((one.outcomes.broken != base).sum())}, {one.timing['attack_seconds']:.2f} s"
                for p, one in found.items()
            }
    return facts
