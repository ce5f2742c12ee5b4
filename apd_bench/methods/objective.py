"""What a method minimises: the protocol between the training loop and a method, and the losses they share.

Shapes: B batch, C classes, D joint embedding. KL is summed over classes and averaged over the batch, everywhere:
PyTorch's "mean" divides by the number of classes too, which would weigh a 10-class set 100 times more than ImageNet.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from apd_bench.core.errors import UsageError
from apd_bench.core.specs import Options
from apd_bench.prompts.classifier import BoundModel, Output

TEACHERS = ("online", "offline", "zero_shot")
Terms = dict[str, Tensor]  # the terms of a loss by name, each a scalar in float32; see `Objective`
Predictor = BoundModel  # a model with its prompts and text features computed for this step
Attacked = Callable[[Output], Tensor]  # what an inner attack maximises: a sum over the samples


class Adversary(Protocol):
    """Makes adversarial images within the training budget; takes gradients with respect to the pixels only."""

    def __call__(
        self,
        pixels: Tensor,
        labels: Tensor,
        *,
        target: Tensor | None = None,
        loss: Attacked | None = None,
        against: Predictor | None = None,
    ) -> Tensor:
        """Images [B, 3, H, W] within eps of `pixels` that raise the recipe's inner loss.

        `target` [B, C] is the distribution that a KL inner loss departs from, `loss` replaces the recipe's inner loss,
        `against` replaces the student as the model under attack.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """Images of one step: pixels [B, 3, H, W] in [0,1], labels [B], sample ids, indexes [B] in the training set."""

    pixels: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    indexes: Tensor


@dataclass(frozen=True)
class Setting:
    """What a method may look at once, before training: see `Objective.prepare`.

    `model` is the student to be bound, `hand_made(text)` the model with a hand-made class text (default: the set's
    template), `images(indexes [B])` the un-augmented pixels of the `size` training images; `count(images, forwards,
    backwards)` reports the passes that the method makes on its own.
    """

    backbone: Any
    model: Any
    hand_made: Callable[..., Predictor]
    images: Callable[[Tensor], Tensor]
    count: Callable[[int, int, int], None]
    size: int
    batch_size: int
    eps: float
    inner_attack: Options
    generator: torch.Generator


@dataclass
class Objective:
    """A method's loss. The fields of a subclass are its options in `[objective]`.

    Calling it gives named scalars; their sum is minimised, except for names that begin with "_", which are only
    logged. `attacks` says whether an inner attack (and so a training budget) is needed. `teacher_kind` asks the loop
    for a teacher: "online" (its own prompts, trained by this objective's terms), "offline" (tuned on clean images
    before), "zero_shot" (the hand-made template).
    """

    attacks: ClassVar[bool] = False

    @property
    def teacher_kind(self) -> str | None:
        """The teacher this objective needs, or None."""
        return None

    def prepare(self, setting: Setting) -> None:
        """Called once before the first step, for what a method computes in advance."""

    def __call__(self, student: Predictor, batch: Batch, adversary: Adversary, teacher: Predictor | None) -> Terms:
        """The terms of one step."""
        raise UsageError(f"{type(self).__name__} has no loss.", hint="Define __call__ in it.")


def cross_entropy(prediction: Output, labels: Tensor) -> Tensor:
    """CE(f, y), averaged over the batch."""
    return F.cross_entropy(prediction.logits, labels)


def probabilities(prediction: Output, temperature: float = 1.0) -> Tensor:
    """softmax(f / temperature) [B, C], detached: a target, never a way for gradients."""
    return F.softmax(prediction.logits.detach() / temperature, dim=-1)


def kl(target: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(target || softmax(logits / temperature)) [B] for probabilities `target` [B, C], summed over classes."""
    log_p = F.log_softmax(logits / temperature, dim=-1)
    return F.kl_div(log_p, target, reduction="none").sum(dim=-1)


def reverse_kl(target: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(logits / temperature) || target) [B] for probabilities `target` [B, C]."""
    log_p = F.log_softmax(logits / temperature, dim=-1)
    log_q = target.clamp_min(torch.finfo(target.dtype).tiny).log()
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)
