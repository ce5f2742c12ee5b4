"""What a check is: where it runs, how long it takes, what it says."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.models import VIT_B16
from tests.benchmarks.table import in_turn

TINY = "tiny-clean"
SHORT = {"autoattack": "(iterations=10,queries=50,targets=3)", "square": "(queries=200)", "worst": "(steps=10)"}
PRECISIONS = ("fp32", "tf32", "bf16")
# Operations of one forward pass of ViT-B/16 on an image of 224 pixels (Dosovitskiy et al. 2021: 17.5 GMACs); a gradient
# with respect to the image takes as many again, as no weight learns. An H100 SXM does 66.9e12 a second in fp32.
VIT_FLOPS, H100_FP32 = 2 * 2 * 17.5e9, 66.9e12
Check = Callable[["Bench"], dict[str, Any]]
CHECKS: list[tuple[str, float, Check]] = []


class Wrong(Exception):
    """A check that failed, in words."""


class Skip(Exception):
    """A check that makes no sense here."""


@dataclass
class Bench:
    """Where the checks run, with sizes for a real GPU or small ones."""

    device: str
    small: bool
    ends: float

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def big(self) -> str:
        """The large model; the embedded one where everything is small."""
        return TINY if self.small else VIT_B16

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], repeats: int = 3) -> float:
        """The shortest of some repeats after one that warms up."""
        return min(in_turn({"work": work}, repeats, self.device)["work"])


def check(name: str, seconds: float) -> Callable[[Check], Check]:
    """Declares a check and about how long it takes on an H100; a check whose name ends in * has no right answer."""

    def declare(function: Check) -> Check:
        CHECKS.append((name, seconds, function))
        return function

    return declare


def off(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value of `b`."""
    b = b.detach().double().cpu()
    return float((a.detach().double().cpu() - b).abs().max() / b.abs().max().clamp_min(1e-30))


def gradient(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of their log-sum-exp."""
    leaf = x.detach().clone().requires_grad_()
    z = model(leaf)
    return z.detach(), torch.autograd.grad(z.logsumexp(1).sum(), leaf)[0]


def each(work: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """What every piece of work says; raises Wrong with all that failed."""
    facts, wrong = {}, {}
    for name, piece in work.items():
        try:
            facts[name] = piece()
        except Exception as error:
            own = [item for item in traceback.extract_tb(error.__traceback__) if "apd_bench" in item.filename]
            where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
            wrong[name] = f"{type(error).__name__}: {str(error)[:160]} @ {where}"
    if wrong:
        raise Wrong(f"{len(wrong)} of {len(work)} failed: {wrong}; the others: {facts}")
    return facts
