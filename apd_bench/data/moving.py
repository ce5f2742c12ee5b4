"""Batches on their way to a device: on CUDA the next one is read and copied while the present one is computed."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


def moved(read: Callable[[Item], Tensor], items: Iterable[Item], device: torch.device) -> Iterator[Tensor]:
    """`read(item)` on `device` for each of `items`, in their order; an error of `read` is raised when its turn comes.

    On CUDA a thread reads one batch ahead into pinned memory, from where the copy needs no waiting. Elsewhere there is
    nothing to overlap, and each batch is read when it is asked for.
    """
    if device.type != "cuda":
        return (read(item).to(device) for item in items)
    return (batch.to(device, non_blocking=True) for batch in ahead(lambda item: _pinned(read(item)), items))


def _pinned(batch: Tensor) -> Tensor:
    """The batch in pinned memory; one that is on a device already stays there."""
    return batch.pin_memory() if batch.device.type == "cpu" else batch


def ahead(read: Callable[[Item], Tensor], items: Iterable[Item]) -> Iterator[Tensor]:
    """`read(item)` for each of `items`, in their order, each begun in a thread while the one before is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="apd-bench-read") as thread:
        waiting: Future[Tensor] | None = None
        for item in items:
            started = thread.submit(read, item)
            if waiting is not None:
                yield waiting.result()
            waiting = started
        if waiting is not None:
            yield waiting.result()
