"""Compiled passes for attacks, where they pay: chosen by a measured rule, and said in the record.

Nothing here can change who judges: examples found on compiled passes are confirmed by the plain float32 model, and
those that it denies are attacked again on it (see `attacks.shortened`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from apd_bench.attacks.catalog import AttackEntry
from apd_bench.attacks.padding import SMALLEST, Accelerated, size_class
from apd_bench.classifier import Classifier
from apd_bench.runner.batches import free_memory, out_of_memory
from apd_bench.runner.machine import check_acceleration

LEAST_COMPILE = 10.0  # seconds: nothing was compiled in less, so less work than this is not worth a try
_REPEATS = 3
_COMPILATIONS = 4  # of models before torch starts anew: it allows 8 in all, and one model can take two
Model = Callable[[Tensor], Tensor]
Compile = Callable[[Model, str], Model]


@dataclass(frozen=True)
class Trial:
    """What a try on one model found: seconds of a gradient of one image, plain and fast, and those of compiling.

    `error` is not empty where the model could not be compiled here.
    """

    plain: float
    fast: float = 0.0
    compile_seconds: float = 0.0
    error: str = ""


@dataclass
class Choice:
    """The model whose gradients are used, None for the plain one, and what the record says of it."""

    model: Accelerated | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Accelerator:
    """Decides for a worker; what it has compiled for its last classifiers is kept, and is free for their next cells."""

    def __init__(self, asked: str, device: str, *, compiled: Compile | None = None) -> None:
        self.asked = asked
        self.device = device
        self.mode = ("graphs" if device.startswith("cuda") else "compile") if asked == "auto" else asked
        self._compile = compiled or compile_model
        self._kept: list[tuple[Classifier, int, Trial, Accelerated]] = []
        self._least = LEAST_COMPILE
        self._compiled = 0

    def choose(self, classifier: Classifier, batch_size: int, gradients: float, reason: str = "") -> Choice:
        """The choice for a cell with about `gradients` gradients of one image left; `reason` rules it out before."""
        if self.asked == "off":
            return Choice()
        check_acceleration(self.asked, self.device)
        if reason:
            return self._off(reason)
        known = next((item for item in self._kept if item[0] is classifier and item[1] == batch_size), None)
        if known is None:
            plain = self._seconds(classifier, batch_size) / batch_size
            if self.asked == "auto" and plain * gradients < self._least:
                return self._off("too little work to compile for", Trial(plain), gradients)
            known = (classifier, batch_size, *self._try(classifier, batch_size, plain))
            self._kept = [*self._kept[-1:], known]
            cost = known[2].compile_seconds
        else:
            cost = 0.0  # compiled for an earlier cell
        _, _, trial, model = known
        if trial.error:
            return self._off(f"could not be compiled here: {trial.error}", trial, gradients)
        gain = (trial.plain - trial.fast) * gradients
        if self.asked == "auto" and gain <= cost:
            return self._off("saves less than it costs", trial, gradients)
        return Choice(model, self._facts(self.mode, "", trial, gradients))

    def failed(self, error: BaseException) -> dict[str, Any]:
        """What the record says after accelerated passes failed in the middle of a cell; they are not tried again."""
        self._kept = [(item[0], item[1], Trial(item[2].plain, error=_line(error)), item[3]) for item in self._kept]
        return self._facts("off", f"failed in use: {_line(error)}")

    def _off(self, reason: str, trial: Trial | None = None, gradients: float = 0.0) -> Choice:
        return Choice(None, self._facts("off", reason, trial, gradients))

    def _facts(self, used: str, reason: str, trial: Trial | None = None, gradients: float = 0.0) -> dict[str, Any]:
        facts: dict[str, Any] = {"asked": self.asked, "used": used}
        if reason:
            facts["reason"] = reason
        if trial is not None:
            facts |= {"plain_seconds_per_image": trial.plain, "gradients_expected": gradients}
            if trial.compile_seconds:
                facts |= {
                    "accelerated_seconds_per_image": trial.fast,
                    "compile_seconds": trial.compile_seconds,
                }
        return facts

    def _try(self, classifier: Classifier, batch_size: int, plain: float) -> tuple[Trial, Accelerated]:
        """Compiles for all sizes of batch, and times plain and fast passes in turn; an error ends up in the trial."""
        graphs = self.mode == "graphs"
        if self._compiled >= _COMPILATIONS:
            torch.compiler.reset()
            self._kept, self._compiled = [], 0
        self._compiled += 1
        began = time.perf_counter()
        model = Accelerated(classifier, classifier, limit=batch_size, classes=graphs)
        try:
            model.fast = self._compile(classifier, self.mode)
            size = max(size_class(batch_size, batch_size), SMALLEST)
            self._seconds(model, size, repeats=1)
            for count in sorted({size_class(count, batch_size) for count in range(1, batch_size)}) if graphs else ():
                self._seconds(model, count, repeats=1)  # records the graph of this size
            cost = time.perf_counter() - began
            self._least = max(min(self._least, cost), 1.0)
            pairs = [(self._seconds(classifier, size), self._seconds(model, size)) for _ in range(_REPEATS)]
        except Exception as error:
            if out_of_memory(error):
                free_memory()
            return Trial(plain, error=_line(error)), model
        slow, fast = (min(side) / size for side in zip(*pairs, strict=True))
        return Trial(slow, fast, cost), model

    def _seconds(self, model: Model, batch: int, repeats: int = _REPEATS) -> float:
        """The shortest seconds of a gradient of `batch` made-up images."""
        side = self._image_size(model)
        pixels = torch.full((batch, 3, side, side), 0.5, device=self.device)
        spent = []
        for _ in range(repeats):
            leaf = pixels.detach().requires_grad_()
            self._wait()
            began = time.perf_counter()
            torch.autograd.grad(model(leaf).sum(), leaf)
            self._wait()
            spent.append(time.perf_counter() - began)
        return min(spent)

    def _image_size(self, model: Model) -> int:
        classifier = model.plain if isinstance(model, Accelerated) else model
        if not isinstance(classifier, Classifier):
            raise TypeError(f"Only classifiers are accelerated, not {type(classifier).__name__}.")
        return classifier.backbone.shapes.image_size

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


def ruled_out(entry: AttackEntry, knowledge: str, eps: float) -> str:
    """Why a cell's attack takes no compiled gradients, whatever they cost; "" where it does."""
    if not entry.gradient or eps == 0:
        return "the attack asks for no gradients"
    if entry.library:
        return "a library's attack goes backwards through one pass more than once"
    if knowledge != "white_box":
        return "the examples are another model's"
    return ""


def compile_model(model: Model, mode: str) -> Model:
    """`model` compiled by torch for batches of any size from 2 on; with "graphs" as recorded CUDA graphs.

    Whole or not at all: where torch would go on with plain passes (an operation that it does not know, its limit of
    recompilations), the compiled model raises.
    """
    compiled: Model = torch.compile(model, mode="reduce-overhead" if mode == "graphs" else None, fullgraph=True)

    def run(x: Tensor) -> Tensor:
        torch._dynamo.maybe_mark_dynamic(x, 0)
        return compiled(x)

    return run


def _line(error: BaseException) -> str:
    text = str(error).strip() or repr(error)
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}"
