"""The training loop: epochs and batches of one run.

Three random streams that depend on the seed alone (initial prompts, order of the images, noise of the attack) make
methods comparable: the same seed gives the same start, the same images in the same order.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from apd_bench.backbones.adapter import Backbone
from apd_bench.core.errors import UsageError
from apd_bench.core.identity import derive_seed
from apd_bench.core.specs import MethodRecipe, Options
from apd_bench.data.splits import LoadedDataset
from apd_bench.methods.adversary import InnerAdversary
from apd_bench.methods.objective import Adversary, Batch, Objective, Terms
from apd_bench.prompts.classifier import BoundModel, Output, PromptedModel
from apd_bench.training.augment import TrainingImages, crop_flip

OnEpoch = Callable[[Mapping[str, Any]], None]
History = list[dict[str, Any]]


@dataclass
class Passes:
    """Image passes through the model, summed over samples, and how often the text tower ran: what a record reports."""

    forwards: int = 0
    backwards: int = 0
    text_forwards: int = 0

    def add(self, images: int, forwards: int, backwards: int) -> None:
        """Counts `images` that passed `forwards` and `backwards` times each."""
        self.forwards += images * forwards
        self.backwards += images * backwards


@dataclass(frozen=True)
class Counted(BoundModel):
    """A bound model that counts its passes; a pass whose image features carry a graph is one backward as well."""

    passes: Passes

    def __call__(self, pixels: Tensor) -> Output:
        """The prediction for pixels [B, 3, H, W]."""
        output = super().__call__(pixels)
        self.passes.add(len(pixels), 1, int(output.image_features.requires_grad))
        return output

    def detached(self) -> "Counted":
        """The same model without the graph of its prompts: what the adversary attacks."""
        return Counted(**vars(super().detached()), passes=self.passes)


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
    teacher_history: History = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)

    def generator(self, stream: str) -> torch.Generator:
        """A fresh random stream of this seed, on the CPU: the same numbers whatever the device."""
        return torch.Generator().manual_seed(derive_seed(stream, self.seed))

    def batch(self, indexes: Tensor, pixels: Tensor | None = None) -> Batch:
        """The batch of the training images at `indexes`, with other (augmented) pixels where given."""
        return Batch(
            pixels=self.images(indexes) if pixels is None else pixels,
            labels=self.images.labels[indexes.to(self.images.device)],
            ids=tuple(self.ids[index] for index in indexes.tolist()),
            indexes=indexes,
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
        return Counted(**vars(model.bind()), passes=self.passes)


def descend(run: Run, *, stage: str = "student", on_progress: OnEpoch | None = None) -> tuple[History, str]:
    """Trains the model of `run`, and its online teacher, in place.

    Returns one row per epoch (rate, mean terms, mean gradient norms), and why training stopped early or "": an epoch
    that is not finite is undone and ends it. `on_progress` receives `{"stage", "epoch", "epochs", "loss"}`.
    """
    training, images = run.recipe.training, run.images
    optimizers = {"": _optimizer(run.model, training)}
    if isinstance(run.teacher, PromptedModel):
        optimizers["teacher_"] = _optimizer(run.teacher, training)
    parameters = [parameter for optimizer in optimizers.values() for parameter in _learned(optimizer)]
    order, noise = run.generator("order"), run.generator("noise")
    history: History = []
    epochs = int(training["epochs"])
    for epoch in range(epochs):
        rate = learning_rate(training, epoch)
        for optimizer in optimizers.values():
            optimizer.param_groups[0]["lr"] = rate
        before = [parameter.detach().clone() for parameter in parameters]
        sums: dict[str, Tensor] = {}
        batches = torch.split(torch.randperm(len(run.ids), generator=order), int(training["batch_size"]))
        if training.get("last_batch") == "drop" and len(batches) > 1 and len(batches[-1]) < len(batches[0]):
            batches = batches[:-1]
        for indexes, pixels in zip(batches, images.batches(batches), strict=True):
            if training["augment"] == "crop_flip":
                pixels = crop_flip(pixels, order)
            for name, value in _step(run, run.batch(indexes, pixels), noise, optimizers).items():
                sums[name] = sums[name] + value if name in sums else value
        row = {"epoch": epoch, "lr": rate, **{name: float(value) / len(batches) for name, value in sums.items()}}
        history.append(row)
        if on_progress is not None:
            on_progress({"stage": stage, "epoch": epoch + 1, "epochs": epochs, "loss": row["loss"]})
        if not all(math.isfinite(value) for value in row.values()):
            with torch.no_grad():
                for parameter, value in zip(parameters, before, strict=True):
                    parameter.copy_(value)
            return history, f"the loss was not finite in epoch {epoch + 1}; the prompts before it were kept"
    return history, ""


def _step(
    run: Run, batch: Batch, noise: torch.Generator, optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """One update of each model; the terms, the loss and the gradient norms before clipping."""
    terms = run.terms(batch, noise)
    loss = total_loss(terms)
    for optimizer in optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    logged = {name.removeprefix("_"): value.detach() for name, value in terms.items()} | {"loss": loss.detach()}
    clip = float(run.recipe.training["clip_norm"] or 0)
    for name, optimizer in optimizers.items():
        learned = _learned(optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in learned if p.grad is not None])
        if clip:
            torch.nn.utils.clip_grads_with_norm_(learned, clip, norm)
        logged[f"{name}gradient_norm"] = norm.detach()
        optimizer.step()
    return logged


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


def _optimizer(model: PromptedModel, training: Options) -> torch.optim.Optimizer:
    """The recipe's optimiser of a model's prompts, all in one group."""
    rate, decay = float(training["lr"]), float(training["weight_decay"])
    if training["optimizer"] == "adamw":
        return torch.optim.AdamW(learnable(model), lr=rate, weight_decay=decay)
    return torch.optim.SGD(learnable(model), lr=rate, momentum=float(training["momentum"]), weight_decay=decay)


def _learned(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    parameters: list[torch.nn.Parameter] = optimizer.param_groups[0]["params"]
    return parameters
