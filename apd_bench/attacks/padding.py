"""A model whose gradients come from a faster twin that wants batches of few sizes: the rest of a batch is filled up.

The samples that still stand are 64, then 61, then 57; a recorded graph fits one size. Rows that only fill up repeat
the first ones, carry no gradient, are cut from the answer and are counted nowhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]
SMALLEST = 2  # a batch of one is a case of its own for a compiler


def size_class(count: int, limit: int) -> int:
    """The smallest of 2, 3, 4, 6, 8, 12, 16, 24, ..., cut at `limit`, that holds `count` rows."""
    power = 1 << max(count - 1, 1).bit_length()
    size = power * 3 // 4 if power >= 4 and power * 3 // 4 >= count else power
    return min(size, max(limit, count, SMALLEST))


def filled(x: Tensor, size: int) -> Tensor:
    """X [B, ...] with its first rows repeated, without a gradient, up to `size` rows; no leaf, so it can have hooks."""
    missing = size - len(x)
    if missing <= 0:
        return x.view_as(x)
    extra = x.detach()
    while len(extra) < missing:
        extra = torch.cat([extra, extra])
    return torch.cat([x, extra[:missing]])


class Accelerated:
    """`plain` without a graph, and `fast`, the same function compiled, where a gradient is asked for.

    With `classes` the batches of `fast` have the sizes of `size_class`, at most `limit`, and what it returns is copied:
    a recorded graph writes its next answer and its next gradient into the same memory. Without, all sizes but one are
    handed on as they are.
    """

    def __init__(self, plain: Model, fast: Model, *, limit: int, classes: bool) -> None:
        self.plain = plain
        self.fast = fast
        self.limit = limit
        self.classes = classes

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [B, K] of x [B, 3, H, W]."""
        if not len(x) or not (torch.is_grad_enabled() and x.requires_grad):
            return self.plain(x)
        if not self.classes:
            return self.fast(filled(x, SMALLEST))[: len(x)]
        batch = filled(x, size_class(len(x), self.limit))
        batch.register_hook(Tensor.clone)  # type: ignore[no-untyped-call]
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self.fast(batch)[: len(x)].clone()
