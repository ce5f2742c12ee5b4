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

from apd_bench.classifier import PromptedModel
from apd_bench.data.protocols import exclude_samples, few_shot_dataset
from apd_bench.data.splits import LoadedDataset
from apd_bench.errors import UsageError, unknown_name
from apd_bench.identity import derive_seed
from apd_bench.methods.adversary import InnerAdversary
from apd_bench.methods.augment import TrainingImages, crop_flip
from apd_bench.methods.clean import CleanCrossEntropy
from apd_bench.methods.counted import Counted, Passes
from apd_bench.methods.objective import Adversary, Batch, Objective, Setting, Terms
from apd_bench.methods.plugins import load_class
from apd_bench.methods.watch import watch
from apd_bench.specs import Fit, MethodRecipe, Options
from apd_bench.states import PromptState, build_learner, classes_digest, digest_of, has_state, load_state, restore

if TYPE_CHECKING:
    from apd_bench.backbones.adapter import Backbone
    from apd_bench.prompts.base import PromptLearner

Progress = Callable[[Mapping[str, Any]], None]


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
    on_progress: Progress | None = None

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
    receives `{"stage", "epoch", "epochs", "loss"}` after each epoch. Raises UsageError when the objective attacks and
    `fit` has no training budget.
    """
    began = time.perf_counter()
    if not fit.method.trains:
        learner = _untrained(fit.method, backbone, data)
        return PromptState(learner.state(), _card(fit, backbone, data, learner.num_parameters, learner.state()))
    run = prepare(fit, backbone, data, device=device, on_progress=on_progress)
    history, failure = _optimise(run)
    state = run.model.learner.state()
    card = _card(fit, backbone, run.data, run.model.learner.num_parameters, state)
    with torch.no_grad():
        lights = watch(run.images, run.model.bind(), history, failure)
    card |= {
        "sample_ids": list(run.ids) if fit.shots != -1 else [],
        "effective": run.model.learner.effective,
        "history": history,
        "teacher_history": run.teacher_history,
        "seconds": round(time.perf_counter() - began, 3),
        **dataclasses.asdict(run.passes),
        **lights,
    }
    return PromptState(state, card)


def prepare(
    fit: Fit,
    backbone: Backbone,
    data: LoadedDataset,
    *,
    device: str | torch.device = "cpu",
    on_progress: Progress | None = None,
) -> Run:
    """Everything up to the first step: the draw, the student, the teacher, what the objective computes in advance."""
    recipe = fit.method
    drawn = few_shot_dataset(exclude_samples(data, fit.exclude), shots=fit.shots, seed=fit.seed, classes=fit.classes)
    if drawn.train is None or not len(drawn.train):
        raise UsageError(f"No training image of {data.spec.name} is left for '{recipe.name}'.")
    objective = build_objective(recipe)
    if objective.attacks and fit.train_eps is None:
        raise UsageError(f"'{recipe.name}' trains on attacked images and needs a budget.", hint="Give --train-eps.")
    if objective.attacks and not recipe.inner_attack:
        raise UsageError(f"'{recipe.name}' attacks, but its recipe has no inner attack.", hint="Add [inner_attack].")
    images = TrainingImages(drawn.train, torch.device(device))
    run = Run(
        recipe=recipe,
        backbone=backbone,
        data=drawn,
        images=images,
        ids=drawn.train.ids,
        seed=fit.seed,
        eps=float(fit.train_eps or 0.0),
        model=_model(recipe, backbone, drawn, fit.seed, images.device),
        objective=objective,
        on_progress=on_progress,
    )
    _add_teacher(run)
    objective.prepare(_setting(run))
    return run


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


def _untrained(recipe: MethodRecipe, backbone: Backbone, data: LoadedDataset) -> PromptLearner:
    """The learner of a method without training: hand-made, or a prompt state carried to this set's classes."""
    if recipe.code is None or not has_state(recipe.code):
        return build_learner(recipe, backbone, data.classes, data.template)
    state = load_state(recipe.code)
    if state.digest != recipe.digest:
        raise UsageError(f"The prompt state in '{recipe.code}' has changed.", hint="Run the same command again.")
    return restore(state, backbone, data.classes, data.template)


def _model(
    recipe: MethodRecipe, backbone: Backbone, data: LoadedDataset, seed: int, device: torch.device
) -> PromptedModel:
    learner = build_learner(recipe, backbone, data.classes, data.template, seed=seed)
    return PromptedModel(backbone, learner.to(device))


def _add_teacher(run: Run) -> None:
    """Gives the run the teacher that its objective asks for: trained along, tuned before, or hand-made."""
    kind = run.objective.teacher_kind
    if kind is None:
        return
    if kind == "zero_shot":
        run.teacher = _hand_made(run)
        return
    model = _model(run.recipe, run.backbone, run.data, run.seed, run.images.device)
    if kind == "online":
        run.teacher = model
    elif kind == "offline":
        clean = dataclasses.replace(run, model=model, objective=CleanCrossEntropy())
        run.teacher_history, _ = _optimise(clean, stage="teacher")
        run.teacher = _frozen(run, model)
    else:
        raise UsageError(f"A teacher of kind '{kind}' is not one of: online, offline, zero_shot.")


def _hand_made(run: Run) -> Counted:
    recipe = dataclasses.replace(run.recipe, learner="template", learner_options={})
    return _frozen(run, _model(recipe, run.backbone, run.data, run.seed, run.images.device))


def _frozen(run: Run, model: PromptedModel) -> Counted:
    with torch.no_grad():
        return run.bind(model).detached()


def _optimise(run: Run, *, stage: str = "student") -> tuple[list[dict[str, Any]], str]:
    """Trains the model (and an online teacher) in place; the terms per epoch, and why it stopped early or ""."""
    training = run.recipe.training
    learned = {"": learnable(run.model)}
    if isinstance(run.teacher, PromptedModel):
        learned["teacher_"] = learnable(run.teacher)
    optimizers = {name: _optimizer(parameters, training) for name, parameters in learned.items()}
    order, noise = run.generator("order"), run.generator("noise", run.images.device)
    epochs = int(training["epochs"])
    history: list[dict[str, Any]] = []
    for epoch in range(epochs):
        rate = learning_rate(training, epoch)
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        before = {name: [p.detach().clone() for p in parameters] for name, parameters in learned.items()}
        row = {"epoch": epoch, "lr": rate, **_epoch(run, order, noise, optimizers, learned)}
        history.append(row)
        if run.on_progress is not None:
            run.on_progress({"stage": stage, "epoch": epoch + 1, "epochs": epochs, "loss": row["loss"]})
        if not all(math.isfinite(value) for value in row.values()):
            with torch.no_grad():
                for name, parameters in learned.items():
                    for parameter, old in zip(parameters, before[name], strict=True):
                        parameter.copy_(old)
            return history, f"the loss was not finite in epoch {epoch + 1}; the prompts before it were kept"
    return history, ""


def _epoch(
    run: Run,
    order: torch.Generator,
    noise: torch.Generator,
    optimizers: Mapping[str, torch.optim.Optimizer],
    learned: Mapping[str, list[torch.nn.Parameter]],
) -> dict[str, float]:
    """One pass over the training images; the means of the terms, their sum and the gradient norms."""
    training = run.recipe.training
    totals: dict[str, Tensor] = {}
    batches = torch.split(torch.randperm(len(run.ids), generator=order), int(training["batch_size"]))
    for places, pixels in zip(batches, run.images.batches(batches), strict=True):
        if training["augment"] == "crop_flip":
            pixels = crop_flip(pixels, order)
        terms = run.terms(run.batch(places, pixels), noise)
        loss = total_loss(terms)
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        logged = {name.removeprefix("_"): value.detach() for name, value in terms.items()} | {"loss": loss.detach()}
        for name, optimizer in optimizers.items():
            norm = torch.nn.utils.get_total_norm([p.grad for p in learned[name] if p.grad is not None])
            if training["clip_norm"]:
                torch.nn.utils.clip_grads_with_norm_(learned[name], float(training["clip_norm"]), norm)
            logged[f"{name}gradient_norm"] = norm.detach()
            optimizer.step()
        for name, value in logged.items():
            totals[name] = totals[name] + value if name in totals else value
    return {name: float(value) / len(batches) for name, value in totals.items()}


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


def _setting(run: Run) -> Setting:
    return Setting(
        backbone=run.backbone,
        model=run.model,
        hand_made=lambda: _hand_made(run),
        images=run.images,
        count=run.passes.add,
        size=len(run.ids),
        batch_size=int(run.recipe.training["batch_size"]),
        eps=run.eps,
        inner_attack=run.recipe.inner_attack,
        generator=run.generator("prepare", run.images.device),
    )


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
