"""The loop of training: epochs and batches of one run, or of several runs in step, each with its own optimisers.

Three random streams that depend on the seed alone (initial prompts, order of the images, noise of the attack) make
methods comparable: the same seed gives the same start, the same images in the same order. Runs in step share nothing
but the moment at which their terms are computed: order, noise, gradients, clipping and history are those of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from apd_bench.classifier import PromptedModel
from apd_bench.data.splits import LoadedDataset
from apd_bench.errors import UsageError
from apd_bench.identity import derive_seed
from apd_bench.methods.adversary import InnerAdversary
from apd_bench.methods.augment import TrainingImages, crop_flip
from apd_bench.methods.counted import Counted, Passes
from apd_bench.methods.objective import Adversary, Batch, Objective, Terms
from apd_bench.specs import MethodRecipe, Options

if TYPE_CHECKING:
    from apd_bench.backbones.adapter import Backbone

Progress = Callable[[Mapping[str, Any]], None]
TermsOf = Callable[[Sequence["Run"], Sequence[Batch], Sequence[torch.Generator]], list[Terms]]


@dataclass
class Run:
    """A fit that is ready for its first step."""

    recipe: MethodRecipe
    backbone: Backbone
    data: LoadedDataset
    images: TrainingImages
    ids: tuple[str, ...]
    seed: int
    eps: float
    model: PromptedModel
    objective: Objective
    teacher: PromptedModel | Counted | None = None
    teacher_history: list[dict[str, Any]] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)

    def generator(self, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh random stream of this seed."""
        return torch.Generator(device).manual_seed(derive_seed(stream, self.seed))

    def batch(self, places: Tensor, pixels: Tensor | None = None) -> Batch:
        """The batch of the training images at `places`, with other (augmented) pixels where given."""
        return Batch(
            pixels=self.images(places) if pixels is None else pixels,
            labels=self.images.labels[places.to(self.images.device)],
            ids=tuple(self.ids[place] for place in places.tolist()),
            places=places,
        )

    def terms(self, batch: Batch, noise: torch.Generator, adversary: Adversary | None = None) -> Terms:
        """The terms of the student's objective on `batch`; each model's text features are computed once."""
        student = self.bind(self.model)
        taught = self.bind(self.teacher) if isinstance(self.teacher, PromptedModel) else self.teacher
        own = InnerAdversary(student.detached(), self.eps, self.recipe.inner_attack, noise)
        return self.objective(student, batch, own if adversary is None else adversary, taught)

    def bind(self, model: PromptedModel) -> Counted:
        """`model` with its prompts and text features of this step."""
        self.passes.text_forwards += 1
        return Counted(model.bind(), self.passes)


class Descent:
    """A run on its way down: its parameters, optimisers, random streams and history; `failure` says why it stopped."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.training = run.recipe.training
        self.learned = {"": learnable(run.model)}
        if isinstance(run.teacher, PromptedModel):
            self.learned["teacher_"] = learnable(run.teacher)
        self.optimizers = {name: _optimizer(parameters, self.training) for name, parameters in self.learned.items()}
        self.order, self.noise = run.generator("order"), run.generator("noise", run.images.device)
        self.history: list[dict[str, Any]] = []
        self.failure = ""
        self._totals: dict[str, Tensor] = {}
        self._before: dict[str, list[Tensor]] = {}
        self._batches: tuple[Tensor, ...] = ()
        self._images: Iterator[Tensor] = iter(())

    def begin(self, epoch: int) -> tuple[Tensor, ...]:
        """Sets the rate of `epoch`, remembers the prompts, and returns the places of its batches."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.training, epoch)
        self._before = {name: [p.detach().clone() for p in items] for name, items in self.learned.items()}
        self._totals = {}
        self._batches = torch.split(
            torch.randperm(len(self.run.ids), generator=self.order), int(self.training["batch_size"])
        )
        self._images = iter(self.run.images.batches(self._batches))
        return self._batches

    def batch(self, places: Tensor) -> Batch:
        """The next images of the epoch, which are those at `places`, augmented where the recipe says so."""
        pixels = next(self._images)
        if self.training["augment"] == "crop_flip":
            pixels = crop_flip(pixels, self.order)
        return self.run.batch(places, pixels)

    def clear(self) -> None:
        """Forgets the gradients of the last step."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def step(self, terms: Terms, loss: Tensor) -> None:
        """Clips and applies the gradients of each model, and adds the terms and norms to those of the epoch."""
        logged = {name.removeprefix("_"): value.detach() for name, value in terms.items()} | {"loss": loss.detach()}
        for name, optimizer in self.optimizers.items():
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.learned[name] if p.grad is not None])
            if self.training["clip_norm"]:
                torch.nn.utils.clip_grads_with_norm_(self.learned[name], float(self.training["clip_norm"]), norm)
            logged[f"{name}gradient_norm"] = norm.detach()
            optimizer.step()
        for name, value in logged.items():
            self._totals[name] = self._totals[name] + value if name in self._totals else value

    def end(self, epoch: int) -> None:
        """Writes down the means of the epoch; prompts that made them infinite are those before it again."""
        means = {name: float(value) / len(self._batches) for name, value in self._totals.items()}
        row = {"epoch": epoch, "lr": learning_rate(self.training, epoch), **means}
        self.history.append(row)
        if all(math.isfinite(value) for value in row.values()):
            return
        self.failure = f"the loss was not finite in epoch {epoch + 1}; the prompts before it were kept"
        with torch.no_grad():
            for name, parameters in self.learned.items():
                for parameter, old in zip(parameters, self._before[name], strict=True):
                    parameter.copy_(old)


def alone(runs: Sequence[Run], batches: Sequence[Batch], noises: Sequence[torch.Generator]) -> list[Terms]:
    """The terms of each run on its own batch, one run after the other."""
    return [run.terms(batch, noise) for run, batch, noise in zip(runs, batches, noises, strict=True)]


def descend(
    runs: Sequence[Run],
    terms_of: TermsOf = alone,
    *,
    stage: str = "student",
    on_progress: Progress | None = None,
) -> list[Descent]:
    """Trains the model (and an online teacher) of each run in place, all in step, by the terms that `terms_of` gives.

    The runs share a recipe and have equally many images. One whose loss is no longer finite stops; the others go on.
    """
    descents = [Descent(run) for run in runs]
    epochs = int(runs[0].recipe.training["epochs"])
    for epoch in range(epochs):
        going = [descent for descent in descents if not descent.failure]
        if not going:
            break
        for places in zip(*(descent.begin(epoch) for descent in going), strict=True):
            batches = [descent.batch(own) for descent, own in zip(going, places, strict=True)]
            terms = terms_of([descent.run for descent in going], batches, [descent.noise for descent in going])
            losses = [total_loss(own) for own in terms]
            for descent in going:
                descent.clear()
            torch.autograd.backward(losses)
            for descent, own, loss in zip(going, terms, losses, strict=True):
                descent.step(own, loss)
        for descent in going:
            descent.end(epoch)
        if on_progress is not None:
            loss_now = sum(descent.history[-1]["loss"] for descent in going) / len(going)
            on_progress({"stage": stage, "epoch": epoch + 1, "epochs": epochs, "loss": loss_now})
    return descents


def learning_rate(training: Options, epoch: int) -> float:
    """The rate of `epoch` (from 0): `warmup_lr` during the warm-up, then a cosine by epoch.

    As in Dassl: the cosine starts after the warm-up with a half-period of all `epochs`, so it does not reach 0.
    """
    warmup = int(training["warmup_epochs"])
    base = float(training["lr"])
    if epoch < warmup:
        return min(float(training["warmup_lr"]), base)
    if training["schedule"] == "constant":
        return base
    return 0.5 * base * (1 + math.cos(math.pi * (epoch - warmup) / int(training["epochs"])))


def total_loss(terms: Terms) -> Tensor:
    """The sum of the terms that are minimised; names with a leading "_" are only logged."""
    return torch.stack([value for name, value in terms.items() if not name.startswith("_")]).sum()


def learnable(model: PromptedModel) -> list[torch.nn.Parameter]:
    """The parameters of a model's learner; raises UsageError where nothing can be learned."""
    parameters = [parameter for parameter in model.learner.parameters() if parameter.requires_grad]
    if not parameters:
        raise UsageError(f"The learner {type(model.learner).__name__} has no parameter, so nothing can be trained.")
    return parameters


def _optimizer(parameters: list[torch.nn.Parameter], training: Options) -> torch.optim.Optimizer:
    rate, decay = float(training["lr"]), float(training["weight_decay"])
    if training["optimizer"] == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=rate, momentum=float(training["momentum"]), weight_decay=decay)
