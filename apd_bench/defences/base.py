"""What a test-time defence is, the prediction of it that counts, and what an attacker differentiates through.

A defence is a pure function of one image and a draw: nothing stays from one image to the next, and no image sees the
others of its batch. All randomness of a prediction comes from the draw, so that an attacker can replay it, average over
others, and be judged by draws that were never attacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from apd_bench.attacks.meter import Model
from apd_bench.core.errors import IncompatibleChoice, UsageError
from apd_bench.core.identity import derive_seed
from apd_bench.prompts.classifier import Classifier

Draw = tuple[object, ...]  # names a drawing of a defence's randomness: the same name, the same numbers
REPEATS = 9  # predictions whose majority is the verdict of a random defence; Croce et al. (ICML 2022) take 5
_LEAD = 1e-6  # of the largest logit, by which the majority's leads where the mean says otherwise


class Defence(nn.Module):
    """A model with an adaptation before its prediction: pixels [B, 3, H, W] in [0, 1] -> logits [B, K].

    A subclass writes `predict`. Its `options` have their defaults in the catalogue alone. It says:

    - `draws`: whether predictions are random; then `noise` makes the random numbers of a draw.
    - `gradients`: which derivatives it has. "replay": the adaptation is repeated as a constant, as Croce et al. (2022)
      replay a defender's state; "unrolled": differentiated through, where that says something else.
    - `gate`: whether there is a switch that an attacker may hold off, see `hinge`.
    - `width`: images that its widest pass makes of one.
    - `learns`: whether it compares an image with those that the model's prompts were trained on; then `learn` says what
      it keeps of them, and `known` has that when it predicts.

    It goes through the model by `logits`, `features` and `gradient` alone, which count: `forwards` and `backwards` are
    image passes, `texts` and `text_gradients` encodings of one class text and gradients through one.
    Raises IncompatibleChoice for a model that it cannot adapt.
    """

    draws: ClassVar[bool] = False
    gradients: ClassVar[tuple[str, ...]] = ("replay",)
    gate: ClassVar[bool] = False
    learns: ClassVar[bool] = False

    def __init__(self, model: Model, **options: Any) -> None:
        super().__init__()
        self.model = model
        self.options = options
        self.unrolled = False
        self.known: Mapping[str, Tensor] = {}
        self.forwards = self.backwards = self.texts = self.text_gradients = 0
        self.prepare()

    # ---------------------------------------------------------------- what a subclass writes

    def prepare(self) -> None:
        """Called once, with model and options in place."""

    def learn(self, batches: Iterable[Tensor]) -> dict[str, Tensor]:
        """What it keeps of the training images [n, 3, H, W] of the model's prompts; the same for all its options."""
        raise NotImplementedError

    def noise(self, generator: torch.Generator, shape: torch.Size) -> Any:
        """The random numbers of one draw for images [3, H, W] of `shape`, on the CPU; all images have the same."""

    def predict(self, x: Tensor, noise: Any) -> Tensor:
        """Logits [B, K] of each image on its own; differentiable in x, with what `constant` wraps as constants."""
        raise NotImplementedError

    def hinge(self, x: Tensor, draw: Draw) -> Tensor:
        """How far [B] each image is from holding the gate off, differentiable; 0 where it is off with some room."""
        raise NotImplementedError

    def facts(self, x: Tensor) -> Mapping[str, Tensor]:
        """Further columns [B] for the record, of unchanged images."""
        return {}

    @property
    def width(self) -> int:
        """Images that the widest pass makes of one."""
        return 1

    # ---------------------------------------------------------------- what it is called by

    def forward(self, x: Tensor, draw: Draw = ()) -> Tensor:
        """The prediction [B, K] of one draw."""
        with sdpa_kernel(SDPBackend.MATH) if self.unrolled else nullcontext():  # no other attention has two derivatives
            prediction: Tensor = self.predict(x, self.drawn(draw, x))
        return prediction

    def drawn(self, draw: Draw, x: Tensor) -> Any:
        """The random numbers of `draw` for images like x; None for a defence without any."""
        if not self.draws:
            return None
        return self.noise(torch.Generator().manual_seed(derive_seed("defence", *draw)), x.shape[1:])

    # ---------------------------------------------------------------- what it is written with

    def constant(self, value: Tensor) -> Tensor:
        """`value` without a graph, but while the adaptation is unrolled."""
        return value if self.unrolled else value.detach()

    def gradient(self, loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        """The gradient of the sum of `loss(p)` at p = `at`: a constant, but while the adaptation is unrolled."""
        with torch.enable_grad():
            p = at if self.unrolled and at.requires_grad else at.detach().requires_grad_()
            (g,) = torch.autograd.grad(loss(p).sum(), p, create_graph=self.unrolled)
        return g if self.unrolled else g.detach()

    def logits(self, x: Tensor) -> Tensor:
        """The model's logits [B, K]."""
        return self._counted(self.model(x), len(x))

    def features(self, x: Tensor, tokens: Tensor | None = None, outputs: list[Tensor] | None = None) -> Tensor:
        """The image tower's features [B, D], not normalised; with visual `tokens` instead of the model's own.

        `outputs` gets what its blocks give, but the last.
        """
        return self._counted(self.classifier.features(x, tokens, outputs), len(x))

    @property
    def classifier(self) -> Classifier:
        """The model as an image-text model, for a defence that looks inside."""
        if not isinstance(self.model, Classifier) or self.model.conditional is not None:
            raise IncompatibleChoice(
                f"{type(self).__name__} needs an image-text model whose class texts are the same for every image.",
                hint="Defences that look at logits alone: mean_views, anti_adversary.",
            )
        return self.model

    def whole(self, name: str, least: int = 1) -> int:
        """The option `name` as a whole number of at least `least`; UsageError otherwise."""
        value = self.options[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"The option {name} = {value!r} must be a whole number of at least {least}.")
        return int(value)

    def _counted(self, z: Tensor, images: int) -> Tensor:
        """Counts a forward pass of so many images, and a backward pass as often as one comes through z."""
        self.forwards += images
        if z.requires_grad:
            z.register_hook(lambda _: self._count_backward(images))  # type: ignore[no-untyped-call]
        return z

    def _count_backward(self, images: int) -> None:
        self.backwards += images


class Verdict(nn.Module):
    """The prediction of a defence that counts: of a random one the `majority` of `repeats` draws of a `stream`."""

    def __init__(self, defence: Defence, stream: str = "verdict", repeats: int = REPEATS) -> None:
        super().__init__()
        self.defence, self.stream = defence, stream
        self.repeats = repeats if defence.draws else 1

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K]."""
        return majority(self.predictions(x))

    def predictions(self, x: Tensor) -> Tensor:
        """The logits [R, B, K] of the repeated predictions."""
        return torch.stack([self.defence(x, (self.stream, place)) for place in range(self.repeats)])

    def share(self, x: Tensor, y: Tensor) -> Tensor:
        """The share [B] of the repeated predictions that are right."""
        with torch.no_grad():
            right: Tensor = self.predictions(x).argmax(2) == y
        return right.float().mean(0)


def majority(each: Tensor) -> Tensor:
    """Mean logits [B, K] of predictions [R, B, K], the largest at the class that most of them predict.

    Of several such classes, the one with the larger mean logit; a single prediction is left as it is.
    """
    if len(each) == 1:
        return each[0]
    mean = each.mean(0)
    votes = torch.zeros_like(mean)
    for z in each:
        votes.scatter_add_(1, z.argmax(1, keepdim=True), torch.ones_like(mean[:, :1]))
    winner = (votes + mean.softmax(1) / 2).argmax(1, keepdim=True)
    lead = mean.amax(1, keepdim=True)
    lead = lead + (winner != mean.argmax(1, keepdim=True)) * _LEAD * lead.abs().clamp_min(1)
    return mean.scatter(1, winner, lead)


class Attacked(nn.Module):
    """A random defence as an attacker meets it: a new draw for every gradient, and a majority of its own for points.

    None of these draws is one that the verdict is made of.
    """

    def __init__(self, defence: Defence) -> None:
        super().__init__()
        self.defence = defence
        self.selection = Verdict(defence, "selection")
        self._calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K]."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            majority: Tensor = self.selection(x)
            return majority
        self._calls += 1
        z: Tensor = self.defence(x, ("attack", self._calls))
        return z
