"""What a compiler gains on the passes of an attack: eager and compiled gradients of one batch, in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch

from apd_bench.attacks.losses import stable_ce
from apd_bench.attacks.padding import Accelerated
from apd_bench.backbones.adapter import Backbone
from apd_bench.bench.loop import made_up
from apd_bench.bench.rows import Row, in_turn, wall
from apd_bench.runner.acceleration import Model, compile_model


def compiled_row(backbone: Backbone, *, batch: int, steps: int, repeats: int, mode: str = "compile") -> Row:
    """`steps` gradients of `batch` images, eager and compiled; what compiling took is among the facts.

    *Pays after* is the number of gradients of one image that win back the seconds of compiling, "never" if none does;
    both by the wall clock, since a compiler works in processes of its own too.
    """
    classifier, pixels, labels = made_up(backbone, batch)
    device = str(backbone.device)

    def gradients(model: Model, count: int) -> torch.Tensor:
        for _ in range(count):
            leaf = pixels.detach().requires_grad_()
            (g,) = torch.autograd.grad(stable_ce(model(leaf), labels).sum(), leaf)
        return g

    fast = Accelerated(classifier, compile_model(classifier, mode), limit=batch, classes=mode == "graphs")
    began = wall(device)
    g = gradients(fast, 1)
    spent = wall(device) - began
    expected = gradients(classifier, 1)
    difference = float((g - expected).abs().max() / expected.abs().max())
    took: dict[str, list[float]] = {"eager": [], "compiled": []}

    def timed(name: str, model: Model) -> Callable[[], None]:
        def work() -> None:
            began = wall(device)
            gradients(model, steps)
            took[name].append(wall(device) - began)

        return work

    sides = {"eager": timed("eager", classifier), "compiled": timed("compiled", fast)}
    seconds = in_turn(sides, repeats, device)  # after a first run of each, which does not count
    kind = "CUDA graphs" if mode == "graphs" else "compiled passes"
    return Row(
        part="loop",
        what=f"gradients by {kind} instead of eager ones on {backbone.spec.name}, batch {batch}, {steps} steps",
        usual=seconds["eager"],
        ours=seconds["compiled"],
        facts={
            "compiling, wall s": round(spent, 1),
            "pays after": _even(took["eager"][1:], took["compiled"][1:], spent, batch * steps),
            "gradients differ by": f"{difference:.1e}",
        },
    )


def _even(eager: Sequence[float], compiled: Sequence[float], spent: float, images: int) -> str:
    saved = (statistics.median(eager) - statistics.median(compiled)) / images
    return f"{spent / saved:,.0f} gradients" if saved > 0 else "never"
