"""The one training loop: every method is a learner, an objective and a recipe, and is trained here.

One step computes the prompts and the text features once; the attack (detached), the clean and the adversarial pass
share them. Three random streams that depend on the seed alone (initial prompts, order of the images, noise of the
attack) make methods comparable: the same seed gives the same start, the same images in the same order.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from apd_bench.classifier import BoundModel, Output, PromptedModel
from apd_bench.data.protocols import exclude_samples, few_shot_dataset
from apd_bench.data.splits import LoadedDataset
from apd_bench.errors import UsageError, unknown_name
from apd_bench.identity import derive_seed
from apd_bench.methods.adversary import InnerAdversary
from apd_bench.methods.augment import TrainingImages, crop_flip
from apd_bench.methods.clean import CleanCrossEntropy
from apd_bench.methods.objective import Batch, Objective, Setting
from apd_bench.methods.plugins import load_class
from apd_bench.specs import Fit, MethodRecipe, Options
from apd_bench.states import PromptState, build_learner, classes_digest, digest_of

if TYPE_CHECKING:
    from apd_bench.backbones.adapter import Backbone

Progress = Callable[[Mapping[str, Any]], None]
WATCHED_IMAGES = 512


@dataclass
class Passes:
    """Image passes through the model, summed over samples, and how often the text tower ran."""

    forwards: int = 0
    backwards: int = 0
    text_forwards: int = 0


class Counted:
    """A bound model that counts its passes; a pass whose image features carry a graph is one backward as well."""

    def __init__(self, model: BoundModel, passes: Passes) -> None:
        self.model = model
        self.passes = passes
        self.prompts = model.prompts
        self.text_features = model.text_features

    def __call__(self, pixels: Tensor) -> Output:
        """The prediction for pixels [B, 3, H, W]."""
        output = self.model(pixels)
        self.passes.forwards += len(pixels)
        if output.image_features.requires_grad:
            self.passes.backwards += len(pixels)
        return output

    def detached(self) -> Counted:
        """The same model without the graph of its prompts: what the adversary attacks."""
        return Counted(self.model.detached(), self.passes)


@dataclass
class Run:
    """The parts of one fit that every step uses."""

    images: TrainingImages
    ids: tuple[str, ...]
    recipe: MethodRecipe
    seed: int
    eps: float
    passes: Passes = field(default_factory=Passes)
    on_progress: Progress | None = None

    def generator(self, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh random stream of this seed."""
        return torch.Generator(device).manual_seed(derive_seed(stream, self.seed))


def fit(
    fit: Fit,
    backbone: Backbone,
    data: LoadedDataset,
    *,
    device: str | torch.device = "cpu",
    on_progress: Progress | None = None,
) -> PromptState:
    """The prompt state of `fit`: the few-shot images are drawn from `data`, the prompts trained on `device`.

    `data` is the whole set; the draw, the class half and the excluded samples of `fit` are applied here. `on_progress`
    receives `{"epoch", "epochs", "loss"}` after each epoch. Raises UsageError when the objective attacks and `fit` has
    no training budget.
    """
    recipe, began = fit.method, time.perf_counter()
    place = torch.device(device)
    if not recipe.trains:
        learner = build_learner(recipe, backbone, data.classes, data.template)
        return PromptState(learner.state(), _card(fit, backbone, data, learner.num_parameters, learner.state()))
    drawn = few_shot_dataset(exclude_samples(data, fit.exclude), shots=fit.shots, seed=fit.seed, classes=fit.classes)
    if drawn.train is None or not len(drawn.train):
        raise UsageError(f"No training image of {data.spec.name} is left for '{recipe.name}'.")
    objective = build_objective(recipe)
    if objective.attacks and fit.train_eps is None:
        raise UsageError(f"'{recipe.name}' trains on attacked images and needs a budget.", hint="Give --train-eps.")
    run = Run(
        images=TrainingImages(drawn.train, place),
        ids=drawn.train.ids,
        recipe=recipe,
        seed=fit.seed,
        eps=float(fit.train_eps or 0.0),
        on_progress=on_progress,
    )
    model = _model(run, backbone, drawn)
    teacher, teacher_history = _teacher(objective, run, backbone, drawn)
    objective.prepare(_setting(run, model, backbone, drawn))
    history, failure = _optimise(run, model, objective, teacher)
    state = model.learner.state()
    card = _card(fit, backbone, drawn, model.learner.num_parameters, state)
    card |= {
        "sample_ids": list(run.ids) if fit.shots != -1 else [],
        "history": history,
        "seconds": round(time.perf_counter() - began, 3),
        **dataclasses.asdict(run.passes),
        **_watch(run, model, history, failure),
    }
    if teacher_history:
        card["teacher_history"] = teacher_history
    return PromptState(state, card)


def build_objective(recipe: MethodRecipe) -> Objective:
    """The recipe's objective with its options; raises UnknownName for an option that it does not have."""
    kind = load_class(str(recipe.objective), recipe)
    options = dict(recipe.objective_options)
    if dataclasses.is_dataclass(kind):
        known = {item.name for item in dataclasses.fields(kind) if item.init}
        for name in options:
            if name not in known:
                raise unknown_name(f"objective option of '{recipe.name}'", name, known)
    try:
        objective: Objective = kind(**options)
    except TypeError as error:
        raise UsageError(f"The objective of '{recipe.name}' cannot be built: {error}.") from error
    return objective


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


def _model(run: Run, backbone: Backbone, data: LoadedDataset) -> PromptedModel:
    learner = build_learner(run.recipe, backbone, data.classes, data.template, seed=run.seed)
    return PromptedModel(backbone, learner.to(run.images.device))


def _teacher(
    objective: Objective, run: Run, backbone: Backbone, data: LoadedDataset
) -> tuple[PromptedModel | Counted | None, list[dict[str, Any]]]:
    """A model to train along (online), a frozen bound model (offline, zero_shot), or None; and how it was tuned."""
    kind = objective.teacher_kind
    if kind is None:
        return None, []
    if kind == "online":
        return _model(run, backbone, data), []
    if kind == "offline":
        model = _model(run, backbone, data)
        history, _ = _optimise(run, model, CleanCrossEntropy(), None, stage="teacher")
        return _frozen(run, model), history
    if kind == "zero_shot":
        return _hand_made(run, backbone, data), []
    raise UsageError(f"A teacher of kind '{kind}' is not one of: online, offline, zero_shot.")


def _hand_made(run: Run, backbone: Backbone, data: LoadedDataset) -> Counted:
    template = dataclasses.replace(run.recipe, learner="template", learner_options={})
    return _frozen(run, _model(dataclasses.replace(run, recipe=template), backbone, data))


def _frozen(run: Run, model: PromptedModel) -> Counted:
    with torch.no_grad():
        return _bind(run, model).detached()


def _optimise(
    run: Run,
    model: PromptedModel,
    objective: Objective,
    teacher: PromptedModel | Counted | None,
    *,
    stage: str = "student",
) -> tuple[list[dict[str, Any]], str]:
    """Trains `model` (and an online teacher) in place; returns the terms per epoch and why it stopped early, or ""."""
    training, images = run.recipe.training, run.images
    learned = {"": [p for p in model.learner.parameters() if p.requires_grad]}
    if isinstance(teacher, PromptedModel):
        learned["teacher_"] = [p for p in teacher.learner.parameters() if p.requires_grad]
    optimizers = {name: _optimizer(parameters, training) for name, parameters in learned.items() if parameters}
    order, noise = run.generator("order"), run.generator("noise", images.device)
    epochs, batch_size, count = int(training["epochs"]), int(training["batch_size"]), len(run.ids)
    history: list[dict[str, Any]] = []
    for epoch in range(epochs):
        rate = learning_rate(training, epoch)
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        before = {name: [p.detach().clone() for p in parameters] for name, parameters in learned.items()}
        totals: dict[str, Tensor] = {}
        steps = 0
        for places in torch.split(torch.randperm(count, generator=order), batch_size):
            pixels = images(places)
            if training["augment"] == "crop_flip":
                pixels = crop_flip(pixels, order)
            batch = Batch(pixels, images.labels[places], tuple(run.ids[i] for i in places.tolist()), places)
            terms = _step(run, model, objective, teacher, batch, noise, optimizers, learned)
            for name, value in terms.items():
                totals[name] = totals.get(name, torch.zeros((), device=value.device)) + value
            steps += 1
        row = {name.removeprefix("_"): float(value) / steps for name, value in totals.items()}
        history.append({"epoch": epoch, "lr": rate, **row})
        if run.on_progress is not None:
            run.on_progress({"stage": stage, "epoch": epoch + 1, "epochs": epochs, "loss": row["loss"]})
        if not all(math.isfinite(value) for value in row.values()):
            for name, parameters in learned.items():
                with torch.no_grad():
                    for parameter, old in zip(parameters, before[name], strict=True):
                        parameter.copy_(old)
            return history, f"the loss was not finite in epoch {epoch + 1}; the prompts before it were kept"
    return history, ""


def _step(
    run: Run,
    model: PromptedModel,
    objective: Objective,
    teacher: PromptedModel | Counted | None,
    batch: Batch,
    noise: torch.Generator,
    optimizers: Mapping[str, torch.optim.Optimizer],
    learned: Mapping[str, list[torch.nn.Parameter]],
) -> dict[str, Tensor]:
    """One update; the detached terms, their sum and the gradient norms."""
    student = _bind(run, model)
    taught = _bind(run, teacher) if isinstance(teacher, PromptedModel) else teacher
    adversary = InnerAdversary(student.detached(), run.eps, run.recipe.inner_attack, noise)
    terms = objective(student, batch, adversary, taught)
    loss = torch.stack([value for name, value in terms.items() if not name.startswith("_")]).sum()
    for optimizer in optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    logged = {name: value.detach() for name, value in terms.items()} | {"_loss": loss.detach()}
    limit = float(run.recipe.training["clip_norm"])
    for name, optimizer in optimizers.items():
        norm = torch.nn.utils.get_total_norm([p.grad for p in learned[name] if p.grad is not None])
        if limit:
            torch.nn.utils.clip_grads_with_norm_(learned[name], limit, norm)
        logged[f"_{name}gradient_norm"] = norm.detach()
        optimizer.step()
    return logged


def _bind(run: Run, model: PromptedModel) -> Counted:
    run.passes.text_forwards += 1
    return Counted(model.bind(), run.passes)


def _optimizer(parameters: list[torch.nn.Parameter], training: Options) -> torch.optim.Optimizer:
    rate, decay = float(training["lr"]), float(training["weight_decay"])
    if training["optimizer"] == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=rate, momentum=float(training["momentum"]), weight_decay=decay)


def _setting(run: Run, model: PromptedModel, backbone: Backbone, data: LoadedDataset) -> Setting:
    def count(images: int) -> None:
        run.passes.forwards += images
        run.passes.backwards += images

    return Setting(
        backbone=backbone,
        model=model,
        hand_made=lambda: _hand_made(run, backbone, data),
        images=run.images,
        count=count,
        size=len(run.ids),
        batch_size=int(run.recipe.training["batch_size"]),
        eps=run.eps,
        inner_attack=run.recipe.inner_attack,
        generator=run.generator("prepare", run.images.device),
    )


def _watch(run: Run, model: PromptedModel, history: list[dict[str, Any]], failure: str) -> dict[str, Any]:
    """Whether the fit collapsed (clean accuracy on its own images within 2 standard errors of chance), and warnings.

    This is a warning light for the record, not a reported accuracy: nothing here sees a test image.
    """
    count = min(len(run.ids), WATCHED_IMAGES)
    places = torch.linspace(0, len(run.ids) - 1, count).round().long()
    with torch.no_grad():
        bound = model.bind()
        right = [
            (bound(run.images(part)).logits.argmax(dim=1) == run.images.labels[part]).sum().item()
            for part in torch.split(places, 128)
        ]
        classes = len(bound.text_features)
    accuracy, chance = sum(right) / count, 1 / classes
    limit = chance + 2 * math.sqrt(chance * (1 - chance) / count)
    warnings = [failure] if failure else []
    last = history[-1]
    cross_entropy = max((value for name, value in last.items() if name.startswith("ce_")), default=0.0)
    consistency = [value for name, value in last.items() if name.startswith("kl_")]
    if consistency and min(consistency) < 1e-3 and cross_entropy > 0.8 * math.log(classes):
        warnings.append("the KL term vanished while the cross-entropy stayed near chance: a trivial solution")
    return {
        "collapsed": bool(failure) or accuracy <= limit,
        "train_accuracy": round(accuracy, 4),
        "chance": round(chance, 4),
        "warnings": warnings,
    }


def _card(
    fit: Fit, backbone: Backbone, data: LoadedDataset, num_parameters: int, state: Mapping[str, Tensor]
) -> dict[str, Any]:
    recipe = dataclasses.asdict(fit.method)
    return {
        "fit": fit.id,
        "method": fit.method.name,
        "recipe": recipe | {"needs": list(fit.method.needs)},
        "backbone": backbone.spec.identity(),
        "dataset": data.spec.name,
        "classes": list(data.classes),
        "classes_digest": classes_digest(data.classes),
        "class_set": fit.classes,
        "template": data.template,
        "seed": fit.seed,
        "shots": fit.shots,
        "train_eps": fit.train_eps,
        "num_parameters": num_parameters,
        "digest": digest_of(state),
        "collapsed": False,
        "warnings": [],
        "sample_ids": [],
        "history": [],
        "seconds": 0.0,
        **dataclasses.asdict(Passes()),
    }
