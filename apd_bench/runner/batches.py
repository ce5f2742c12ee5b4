"""The batch size of a worker: asked for, a constant, or on CUDA the largest power of two that fits the memory.

One forward and backward pass is measured at two small batches. Its peak grows linearly with the batch, so two points
tell what a larger one takes. The same device with the same free memory and the same model give the same answer.
"""

import gc
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SHARE = 0.8  # of the free memory: the rest is for fragmentation and what other libraries allocate
LIMIT = 512  # images: beyond it no GPU gets faster, and cells are measured in parts of about 500
HELD = 16  # images' worth of pixels that an attack holds for each sample: points, boxes, gradients, the best of them
PROBES = ((4, 8), (1, 2))  # batches that are measured; the second pair where the first does not fit
# The words of CUDA and MPS, of cuBLAS and cuDNN (..._STATUS_ALLOC_FAILED), of the machine.
_NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|ALLOC(ATION)?_FAILED", re.IGNORECASE)
_TINY = 64  # images up to this many pixels a side count as tiny


@dataclass(frozen=True)
class BatchSize:
    """Images per batch, and for the record how the number was found."""

    size: int
    facts: Mapping[str, Any] = field(default_factory=dict)


class CudaMemory:
    """A `share` of the memory of a CUDA device under passes through `model`, on made-up images of `image_size`."""

    def __init__(self, model: Callable[[Tensor], Tensor], image_size: int, device: str, share: float = 1.0) -> None:
        self._model, self._image_size, self._device = model, image_size, torch.device(device)
        self._share = share

    def free(self) -> int:
        """Free bytes: those of the driver and those that torch reserves unused, no more than the rest of the share."""
        used = torch.cuda.memory_allocated(self._device)
        left, whole = torch.cuda.mem_get_info(self._device)
        unused = torch.cuda.memory_reserved(self._device) - used
        return min(int(left) + unused, int(self._share * whole) - used)

    def peak(self, batch: int) -> int:
        """The most bytes that a pass of `batch` images holds: of a second one, so that workspaces are not counted."""
        pixels = torch.full((batch, 3, self._image_size, self._image_size), 0.5, device=self._device)
        self._pass(pixels)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        self._pass(pixels)
        return int(torch.cuda.max_memory_allocated(self._device)) - before

    def _pass(self, pixels: Tensor) -> None:
        leaf = pixels.detach().requires_grad_()
        torch.autograd.grad(self._model(leaf).sum(), leaf)


def default_batch_size(image_size: int) -> int:
    """A batch that fits everywhere and keeps a CPU busy; memory that runs out halves it."""
    return 100 if image_size <= _TINY else 32


def largest_batch(memory: CudaMemory, image_size: int) -> BatchSize:
    """The largest power of two, at most LIMIT, whose predicted peak is within SHARE of the free memory; at least 1."""
    pixels = HELD * 3 * image_size**2 * 4
    facts: dict[str, Any] = {"from": "memory", "share": SHARE, "limit": LIMIT}
    for small, large in PROBES:
        try:
            low, high = memory.peak(small), memory.peak(large)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            free_memory()
            continue
        free = memory.free()
        each = max((high - low) / (large - small), 0.0)
        fixed = max(low - small * each, 0.0)
        size = LIMIT
        while size > 1 and fixed + size * (each + pixels) > SHARE * free:
            size //= 2
        facts |= {"bytes_per_image": int(each + pixels), "bytes_fixed": int(fixed), "bytes_free": free}
        return BatchSize(size, facts)
    return BatchSize(1, {**facts, "bytes_free": memory.free()})


def out_of_memory(error: BaseException) -> bool:
    """True when the device or the machine had too little memory; torch often says so in a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _NO_MEMORY.search(str(error)) is not None


def free_memory() -> None:
    """Gives back what the failed batch held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
