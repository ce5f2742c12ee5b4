"""Writing the better points of a batch into the best ones so far: two ways with the same bits.

The host knows at once which rows of a tensor in its own memory are better, so only those are copied. A GPU would have
to be waited for; there all rows are rewritten, the worse ones with what they had.
"""

from __future__ import annotations

from torch import Tensor


def keep(best: Tensor, rows: Tensor, x: Tensor, better: Tensor) -> None:
    """Writes the points x [A, 3, H, W] into `best` [B, 3, H, W] at `rows` [A] where `better` [A] is true."""
    (keep_chosen if best.device.type == "cpu" else keep_masked)(best, rows, x, better)


def keep_chosen(best: Tensor, rows: Tensor, x: Tensor, better: Tensor) -> None:
    """Copies the better rows alone; the host has to know how many there are."""
    places = better.nonzero().squeeze(1)
    if len(places):
        best.index_copy_(0, rows[places], x.index_select(0, places))


def keep_masked(best: Tensor, rows: Tensor, x: Tensor, better: Tensor) -> None:
    """Rewrites all rows; the host need not wait for anything."""
    best.index_copy_(0, rows, x.where(better[:, None, None, None], best.index_select(0, rows)))
