"""How long a plan takes on this machine: seconds per image pass, from stored records or a short calibration.

Imports no torch; the calibration runs in a process of its own and is kept in the user's cache folder.
"""

import json
import platform
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apd_bench.backbones.configs import model_config
from apd_bench.backbones.present import missing_weights, stand_in
from apd_bench.core.cache import cache_value, cached_values
from apd_bench.core.errors import MissingPrerequisite
from apd_bench.core.gpus import GPUS
from apd_bench.core.specs import BackboneSpec, Cell, Fit
from apd_bench.records.record import Record
from apd_bench.runner.estimate import BACKWARD, passes_of, samples_of

_FILE = "calibration.json"
_RECORD_BYTES, _SAMPLE_BYTES, _FIT_BYTES = 9_000, 60, 150_000  # measured on the embedded suite
EFFICIENCY = 0.35  # of the peak that passes through a ViT are assumed to reach
_ENOUGH = 200  # image passes below which a record's time says more about loading than about the model


@dataclass(frozen=True)
class Speed:
    """Seconds of one forward and one backward image pass, and where the numbers come from."""

    forward: float
    backward: float
    source: str

    def seconds(self, passes: tuple[float, float]) -> float:
        """Seconds for (forwards, backwards) image passes."""
        return passes[0] * self.forward + passes[1] * self.backward


def speeds_of(records: Iterable[Record], device: str) -> dict[str, Speed]:
    """The speed of every backbone that records were measured with on this kind of device: seconds per image pass."""
    seconds: defaultdict[str, float] = defaultdict(float)
    units: defaultdict[str, float] = defaultdict(float)
    for record in records:
        timing = record.timing
        forwards, backwards = timing.get("forwards") or 0.0, timing.get("backwards") or 0.0
        spent = timing.get("attack_seconds") or 0.0
        same = record.environment.get("device", "cpu").partition(":")[0] == device.partition(":")[0]
        if same and forwards + backwards >= _ENOUGH and spent > 0:
            seconds[record.cell.fit.backbone.name] += spent
            units[record.cell.fit.backbone.name] += forwards + BACKWARD * backwards
    each = {name: seconds[name] / units[name] for name in seconds}
    return {name: Speed(value, BACKWARD * value, "the stored records") for name, value in each.items()}


def estimated(backbone: BackboneSpec, gpu: str, precision: str) -> Speed | None:
    """The speed of a GPU at EFFICIENCY of its peak; None for towers whose arithmetic is unknown."""
    operations = forward_operations(model_config(backbone.architecture) or {})
    peak = GPUS[gpu].get(precision, GPUS[gpu]["fp32"])
    if operations is None:
        return None
    seconds = operations / (EFFICIENCY * peak * 1e12)
    source = f"an estimate, {EFFICIENCY:.0%} of the peak of one {gpu} in {precision}: nothing was measured"
    return Speed(seconds, BACKWARD * seconds, source)


def forward_operations(config: Mapping[str, Any]) -> float | None:
    """Floating-point operations of one image's forward pass through a vision transformer's blocks; None for others."""
    vision = config.get("vision_cfg", {})
    width, layers, patch = (vision.get(name) for name in ("width", "layers", "patch_size"))
    if not all(isinstance(value, int) for value in (width, layers, patch)):
        return None
    tokens = (vision.get("image_size", 224) // patch) ** 2 + 1
    weights = (4 + 2 * vision.get("mlp_ratio", 4.0)) * width**2
    return float(2 * (layers * (weights * tokens + 2 * tokens**2 * width) + 3 * patch**2 * width * (tokens - 1)))


def device_here() -> str:
    """The device that a run takes by default, as far as that can be told without torch."""
    return "cuda" if Path("/dev/nvidia0").exists() else "cpu"


def calibrated(backbone: BackboneSpec, device: str) -> Speed | None:
    """The stored calibration of a backbone on this machine, or None."""
    try:
        row = cached_values(_FILE)[_key(backbone, device)]
        return Speed(float(row["forward"]), float(row["backward"]), "a calibration on this machine")
    except (ValueError, KeyError, TypeError):
        return None  # none yet, or a file that is not one: it is made anew


def calibrate(backbone: BackboneSpec, device: str) -> Speed:
    """Measures a backbone for a few seconds in another process, and keeps the result.

    Where its weights are not here, random ones take their place: they take the same time. Raises MissingPrerequisite
    when the backbone cannot be loaded.
    """
    name = backbone.name if missing_weights(backbone) is None else stand_in(backbone)
    command = [sys.executable, "-m", "apd_bench.runner.calibration", name, device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (our own module)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingPrerequisite(f"{backbone.name} could not be timed: {reason}")
    row = json.loads(done.stdout.splitlines()[-1])
    cache_value(_FILE, _key(backbone, device), row)
    return Speed(row["forward"], row["backward"], "a calibration on this machine")


def work_seconds(cells: Iterable[Cell], fits: Iterable[Fit], speeds: dict[str, Speed]) -> tuple[float, set[str]]:
    """Seconds of work if every sample resists, and the backbones that no speed is known for (not counted)."""
    work: list[tuple[str, Cell | Fit]] = [(cell.fit.backbone.name, cell) for cell in cells]
    work += [(fit.backbone.name, fit) for fit in fits]
    total = sum(speeds[name].seconds(passes_of(item)) for name, item in work if name in speeds)
    return total, {name for name, _ in work} - speeds.keys()


def disk_bytes(cells: Iterable[Cell], fits: Iterable[Fit]) -> int:
    """About how much the records, outcomes and prompt states take on disk."""
    return sum(_RECORD_BYTES + _SAMPLE_BYTES * samples_of(cell) for cell in cells) + _FIT_BYTES * sum(1 for _ in fits)


def _key(backbone: BackboneSpec, device: str) -> str:
    return f"{backbone.name}|{device}|{platform.node()}"
