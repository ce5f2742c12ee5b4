"""`python -m apd_bench.runner.calibration BACKBONE DEVICE`: seconds per image pass, as one JSON line."""

import json
import sys
from collections.abc import Callable
from types import FunctionType

import torch
from torch.utils.benchmark import Timer

from apd_bench.backbones.adapter import Backbone
from apd_bench.core.errors import UserError
from apd_bench.core.registry import BACKBONES
from apd_bench.core.targets import resolve
from apd_bench.runner.batches import default_batch_size
from apd_bench.runner.session import TINY, pick_device
from apd_bench.training.prompt_states import zero_shot

_CLASSES = [f"thing {number}" for number in range(10)]
_SECONDS = 2.0
_FEW = 4  # images a batch of a large model on a CPU: enough to keep it busy, few enough for seconds


def measure(name: str, device: str) -> dict[str, float]:
    """Seconds of one forward and one backward image pass of a backbone with ten classes."""
    spec = BACKBONES.get(name)
    if device == "cpu" and spec.image_size <= TINY:
        torch.set_num_threads(1)  # as the workers do
    load: Callable[..., Backbone] = resolve(spec.loader, FunctionType)
    backbone = load(spec, device=pick_device(device))
    classifier = zero_shot(backbone, _CLASSES, "a picture of a {}.")
    size = backbone.shapes.image_size
    batch = _FEW if device == "cpu" and size > TINY else default_batch_size(size)
    pixels = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)

    def forward() -> None:
        with torch.no_grad():
            classifier(pixels)

    def both() -> None:
        leaf = pixels.clone().requires_grad_()
        torch.autograd.grad(classifier(leaf).sum(), leaf)

    alone, together = (_seconds(step) / batch for step in (forward, both))
    return {"forward": alone, "backward": max(together - alone, alone)}


def _seconds(step: Callable[[], None]) -> float:
    timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=_SECONDS).median)


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(measure(sys.argv[1], sys.argv[2])) + "\n")
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None
