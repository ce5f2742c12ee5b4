"""The largest memory that a piece of work holds above what was held before it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Peak:
    """What `peak` found, in bytes; None where this system cannot tell."""

    bytes: int | None = None


@contextmanager
def peak(device: torch.device) -> Iterator[Peak]:
    """Inside: the work. After: the most memory it held, by torch on CUDA, by the kernel's high-water mark on Linux."""
    found = Peak()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    start = _reset()
    yield found
    if start is not None:
        found.bytes = max(_read("VmHWM") - start, 0)


def _reset() -> int | None:
    """Sets the high-water mark of this process to what it holds, and tells that; None where there is no such mark."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else memory that torch has given back still counts as held
        _CLEAR.write_text("5")
        return _read("VmRSS")
    except (OSError, AttributeError):
        return None


def _read(name: str) -> int:
    for line in _STATUS.read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0
