"""The engine for any model: `evaluate(model, data, attack, threat)` for a callable from [0,1] pixels to logits."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from apd_bench.attacks.inputs import check_labels, check_pixels, model_problem
from apd_bench.attacks.parse import parse_attack, spec_of
from apd_bench.core.errors import UsageError
from apd_bench.core.registry import ATTACKS
from apd_bench.core.specs import AttackSpec, ThreatModel, parse_eps
from apd_bench.evaluation.cell import Samples, evaluate_samples
from apd_bench.evaluation.progress import OnProgress
from apd_bench.records.measured import Measured
from apd_bench.runner.batches import default_batch_size
from apd_bench.runner.session import pick_device


@dataclass(frozen=True)
class _Images:
    """Labelled images in memory."""

    ids: Sequence[str]
    labels: Tensor
    images: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indexes: Sequence[int]) -> Tensor:
        return self.images[torch.as_tensor(indexes, dtype=torch.int64)]


def evaluate(
    model: Callable[[Tensor], Tensor],
    data: Any,
    attack: str | AttackSpec = "autoattack",
    threat: ThreatModel | str | float = "Linf 4/255",
    *,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    source: Callable[[Tensor], Tensor] | None = None,
    on_progress: OnProgress | None = None,
) -> Measured:
    """How robust `model`, any callable from pixels [B, C, H, W] in [0,1] to logits [B, K], is on `data`.

    `data`: (images, labels) as tensors or arrays, an iterable of such batches (a loader), a split, or a loaded set (its
    test split). `attack`: a name with options, such as "pgd(steps=100)". `threat`: a ThreatModel, "Linf 4/255",
    "L2 0.5", or a Linf budget as a number. `batch_size`: None is 100 for images up to 64 pixels, 32 for larger ones.
    `source`: the model that a transfer attack differentiates through.
    The result has `clean_accuracy`, `robust_accuracy`, `suspect` (why the number may be too good), per-sample
    `outcomes`, `diagnostics` and `timing`. Raises UsageError for anything that would make the answer wrong.
    """
    if not callable(model):
        raise UsageError(f"The model is a {type(model).__name__}, not a callable from pixels to logits.")
    spec = _checked(attack)
    place = torch.device(pick_device(str(_device_of(model) if device is None else device)))
    samples, within = _samples(data), _threat(threat)
    if not len(samples):
        raise UsageError("There are no samples: an accuracy of nothing is no number.", hint="Pass at least one image.")
    try:
        with torch.cuda.device(place) if place.type == "cuda" else nullcontext():
            return evaluate_samples(
                model,
                samples,
                spec,
                within,
                seed=seed,
                batch_size=default_batch_size(samples.pixels([0]).shape[-1]) if batch_size is None else batch_size,
                device=place,
                on_progress=on_progress,
                source_classifier=source,
            )
    except RuntimeError as error:
        problem = model_problem(error, model, place)
        if problem is None:
            raise
        raise problem from error


def _checked(spec: str | AttackSpec) -> AttackSpec:
    if isinstance(spec, str):
        return parse_attack(spec)
    if not isinstance(spec, AttackSpec):
        raise UsageError(f"The attack is a {type(spec).__name__}.", hint="Pass a name, such as 'pgd(steps=100)'.")
    return spec_of(ATTACKS.get(spec.name), spec.options)


def _threat(value: ThreatModel | str | float) -> ThreatModel:
    if isinstance(value, ThreatModel):
        return value
    norm, _, budget = str(value).strip().rpartition(" ")
    spelled = {"linf": "Linf", "l2": "L2"}.get(norm.strip().lower(), norm.strip()) or "Linf"
    return ThreatModel(eps=parse_eps(budget, spelled), norm=spelled)


def _device_of(model: Any) -> torch.device:
    """The device of a module's parameters or buffers, or of a module that a function uses; else the CPU."""
    held = [model, getattr(model, "__self__", None), getattr(model, "func", None), *getattr(model, "args", ())]
    if isinstance(model, FunctionType):
        used = inspect.getclosurevars(model)
        held += [*used.nonlocals.values(), *used.globals.values()]
    modules = [item for item in held if isinstance(item, nn.Module)]
    tensors = (tensor for item in modules for tensor in chain(item.parameters(), item.buffers()))
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _samples(data: Any) -> Samples:
    """Whatever holds images and labels as one interface; raises UsageError for what does not."""
    if hasattr(data, "test") and hasattr(data, "classes"):
        data = data.test
    if hasattr(data, "pixels") and hasattr(data, "ids") and hasattr(data, "labels"):
        split: Samples = data
        return split
    if isinstance(data, (tuple, list)) and len(data) == 2 and _is_array(data[0]):
        return _images(data[0], data[1])
    if isinstance(data, Iterable) and not _is_array(data):
        batches = [_images(*_pair(batch)) for batch in data]
        if batches:
            images, labels = (torch.cat([getattr(part, name) for part in batches]) for name in ("images", "labels"))
            return _images(images, labels)
        return _images(torch.zeros(0, 3, 1, 1), torch.zeros(0, dtype=torch.int64))
    raise UsageError(
        f"The data is a {type(data).__name__}.",
        hint="Pass (images, labels), a loader of such batches, a split, or a loaded set.",
    )


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return batch[0], batch[1]
    raise UsageError(
        f"A batch of the data is a {type(batch).__name__} and not (images, labels).", hint="Yield (images, labels)."
    )


def _images(images: Any, labels: Any) -> _Images:
    pixels = check_pixels(_tensor("Images", images)).cpu()
    return _Images(
        [f"{place:08d}" for place in range(len(pixels))],
        check_labels(_tensor("Labels", labels), len(pixels), torch.device("cpu")),
        pixels,
    )


def _tensor(what: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{what} are a {type(value).__name__} that is no array of numbers.", hint="Pass a tensor or an array."
        ) from error


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))
