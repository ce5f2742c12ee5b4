"""Losses that an attacker maximises: logits z [B, K] and labels y [B] to one value per sample [B], in float32.

Cross-entropy is softplus(u) with u = logsumexp_{j != y} z_j - z_y. Its gradient with respect to the pixels is that of
u times sigmoid(u), and sigmoid(u) is rounded away where the margin is large: above a margin of about 17 the true class
drops out of the float32 gradient, above about 88 nothing is left of it. `stable_ce` is u itself. It grows with the
cross-entropy, so signed and normalised steps are the same in exact arithmetic, and it never saturates.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
Objective = Callable[[Tensor, Tensor], Tensor]  # of logits z [A, K] and the rows [A] of a search that they belong to


def stable_ce(z: Tensor, y: Tensor) -> Tensor:
    """logsumexp_{j != y} z_j - z_y."""
    y = y[:, None]
    return z.scatter(1, y, float("-inf")).logsumexp(1) - z.gather(1, y).squeeze(1)


def ce(z: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy as it is usually computed; saturates."""
    return functional.cross_entropy(z, y, reduction="none")


def margin(z: Tensor, y: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y (Carlini & Wagner 2017, f6 without the clamp); positive when misclassified."""
    y = y[:, None]
    return z.scatter(1, y, float("-inf")).amax(1) - z.gather(1, y).squeeze(1)


def dlr(z: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, eq. 6); the margin loss for fewer than three classes."""
    if z.shape[1] < 3:
        return margin(z, y)
    top = z.topk(3, dim=1).values
    return margin(z, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_margin(z: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """z_t - z_y for the target classes t [B]."""
    return (z.gather(1, t[:, None]) - z.gather(1, y[:, None])).squeeze(1)


def targeted_dlr(z: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Targeted DLR (Croce & Hein 2020, eq. 7); the targeted margin for fewer than four classes."""
    if z.shape[1] < 4:
        return targeted_margin(z, y, t)
    top = z.topk(4, dim=1).values
    return targeted_margin(z, y, t) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def kl_from_clean(z: Tensor, clean: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(z)) for the logits `clean` [B, K] of the unchanged images."""
    p = functional.log_softmax(clean, dim=1)
    return (p.exp() * (p - functional.log_softmax(z, dim=1))).sum(1)


LOSSES: dict[str, Loss] = {"stable-ce": stable_ce, "ce": ce, "margin": margin, "dlr": dlr}
