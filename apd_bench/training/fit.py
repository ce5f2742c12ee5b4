"""From a fit to its prompt state: every method is a learner, an objective and a recipe, and is trained here.

One step computes the prompts and the text features once; the attack (detached), the clean and the adversarial pass
share them. `loop` holds the steps; here is what comes before them (the few-shot images, the student, the teacher) and
after them (the card).
"""

import dataclasses
import time
from typing import Any

import torch

from apd_bench.backbones.adapter import Backbone
from apd_bench.core.errors import UsageError, unknown_name
from apd_bench.core.identity import counted, digest
from apd_bench.core.specs import Fit, MethodRecipe, one_of
from apd_bench.data.protocols import few_shot_dataset
from apd_bench.data.splits import LoadedDataset
from apd_bench.methods.classes import load_class
from apd_bench.methods.clean import CleanCrossEntropy
from apd_bench.methods.objective import TEACHERS, Objective, Setting
from apd_bench.prompts.base import PromptLearner
from apd_bench.prompts.classifier import PromptedModel
from apd_bench.records.record import json_form
from apd_bench.training.augment import TrainingImages
from apd_bench.training.loop import Counted, OnEpoch, Passes, Run, descend
from apd_bench.training.prompt_states import PromptState, build_learner, digest_of, has_state, load_state, restore
from apd_bench.training.watch import watch


def fit(
    fit: Fit,
    backbone: Backbone,
    data: LoadedDataset,
    *,
    device: str | torch.device = "cpu",
    on_progress: OnEpoch | None = None,
) -> PromptState:
    """The prompt state of `fit`: the few-shot images are drawn from `data`, the prompts trained on `device`.

    `data` is the whole set, of which the classes and shots of `fit` are drawn here. `on_progress` receives
    `{"stage", "epoch", "epochs", "loss"}` after each epoch. Raises UsageError when the objective attacks and `fit` has
    no training budget.
    """
    if not fit.method.trains:
        learner, facts = _untrained(fit.method, backbone, data)
        return PromptState(learner.state(), _card(fit, backbone, data, learner) | facts)
    began = time.perf_counter()
    run = prepare(fit, backbone, data, device=device, on_progress=on_progress)
    history, failure = descend(run, on_progress=on_progress)
    learner = run.model.learner
    card = _card(fit, backbone, run.data, learner)
    with torch.no_grad():
        card |= watch(run.images, run.model.bind(), history, failure)
    templates = {"templates": list(learner.used_templates)} if "\n" in learner.template else {}  # of an ensemble
    card |= {
        "sample_ids": list(run.ids) if fit.shots != -1 else [],
        "effective": learner.effective | templates,
        "history": history,
        "teacher_history": run.teacher_history,
        **_short_of_shots(fit, run.data),
        "seconds": round(time.perf_counter() - began, 3),
        **dataclasses.asdict(run.passes),
    }
    return PromptState(learner.state(), card)


def prepare(
    fit: Fit,
    backbone: Backbone,
    data: LoadedDataset,
    *,
    device: str | torch.device = "cpu",
    on_progress: OnEpoch | None = None,
) -> Run:
    """Everything up to the first step: the draw, the student, the teacher, what the objective computes in advance."""
    recipe = fit.method
    drawn = few_shot_dataset(data, shots=fit.shots, seed=fit.seed, classes=fit.classes)
    if drawn.train is None or not len(drawn.train):
        raise UsageError(f"No training image of {data.spec.name} is left for '{recipe.name}'.")
    objective = build_objective(recipe)
    if objective.attacks and fit.train_eps is None:
        raise UsageError(
            f"'{recipe.name}' trains on attacked images and needs a budget.", hint="Write --set train_eps=2/255."
        )
    if objective.attacks and not recipe.inner_attack:
        raise UsageError(f"'{recipe.name}' attacks, but its recipe has no inner attack.", hint="Add [inner_attack].")
    run = Run(
        recipe=recipe,
        backbone=backbone,
        data=drawn,
        images=TrainingImages(drawn.train, torch.device(device)),
        ids=drawn.train.ids,
        seed=fit.seed,
        eps=float(fit.train_eps or 0.0),
        model=_model(recipe, backbone, drawn, fit.seed, device),
        objective=objective,
    )
    _add_teacher(run, on_progress)
    objective.prepare(
        Setting(
            backbone=backbone,
            model=run.model,
            hand_made=lambda text="": _hand_made(run, text),
            images=run.images,
            count=run.passes.add,
            size=len(run.ids),
            batch_size=int(recipe.training["batch_size"]),
            eps=run.eps,
            inner_attack=recipe.inner_attack,
            generator=run.generator("prepare"),
        )
    )
    return run


def build_objective(recipe: MethodRecipe) -> Objective:
    """The recipe's objective with its options; raises UnknownName for an option that it does not have."""
    kind = load_class("objective", recipe, Objective)
    options = dict(recipe.objective_options)
    if dataclasses.is_dataclass(kind):
        known = {item.name for item in dataclasses.fields(kind) if item.init}
        for name in options:
            if name not in known:
                raise unknown_name(f"objective option of '{recipe.name}'", name, known)
    try:
        return kind(**options)
    except TypeError as error:
        raise UsageError(f"The objective of '{recipe.name}' cannot be built: {error}.") from error


def _untrained(recipe: MethodRecipe, backbone: Backbone, data: LoadedDataset) -> tuple[PromptLearner, dict[str, str]]:
    """The learner of a method without training: hand-made, or a prompt state carried to this set's classes.

    Beside it, as `carried_from`, the backbone that the state was made for, where it is another one.
    """
    if recipe.state is None or not has_state(recipe.state):
        return build_learner(recipe, backbone, data.classes, data.template), {}
    state = load_state(recipe.state)
    if state.digest != (recipe.digest or "").partition("+")[0]:
        raise UsageError(f"The prompt state in '{recipe.state}' has changed.", hint="Run the same command again.")
    made_for = state.card["backbone"]
    elsewhere = digest(made_for) != digest(counted(backbone.spec))
    facts = {"carried_from": str(made_for["name"])} if elsewhere else {}
    return restore(state, backbone, data.classes, data.template), facts


def _model(
    recipe: MethodRecipe, backbone: Backbone, data: LoadedDataset, seed: int, device: str | torch.device
) -> PromptedModel:
    learner = build_learner(recipe, backbone, data.classes, data.template, seed=seed)
    return PromptedModel(backbone, learner.to(device))


def _add_teacher(run: Run, on_progress: OnEpoch | None) -> None:
    """Gives `run` the teacher that its objective asks for: trained along, tuned before, or hand-made."""
    kind = run.objective.teacher_kind
    if kind is None:
        return
    if one_of("The teacher's kind", kind, TEACHERS) == "zero_shot":
        run.teacher = _hand_made(run)
        return
    model = _model(run.recipe, run.backbone, run.data, run.seed, run.images.device)
    if kind == "online":
        run.teacher = model
        return
    clean = dataclasses.replace(run, model=model, objective=CleanCrossEntropy())
    run.teacher_history, _ = descend(clean, stage="teacher", on_progress=on_progress)
    run.teacher = _frozen(run, model)


def _hand_made(run: Run, text: str = "") -> Counted:
    recipe = dataclasses.replace(run.recipe, learner="template", learner_options={"text": text})
    return _frozen(run, _model(recipe, run.backbone, run.data, run.seed, run.images.device))


def _frozen(run: Run, model: PromptedModel) -> Counted:
    with torch.no_grad():
        return run.bind(model).detached()


def _short_of_shots(fit: Fit, drawn: LoadedDataset) -> dict[str, Any]:
    """Where classes have fewer training images than shots: how many classes, and the fewest images of one."""
    if fit.shots < 1 or drawn.train is None:
        return {}
    counts = torch.bincount(drawn.train.labels, minlength=len(drawn.classes))
    short = int((counts < fit.shots).sum())
    return {"fewer_shots": {"classes": short, "fewest": int(counts.min())}} if short else {}


def _card(fit: Fit, backbone: Backbone, data: LoadedDataset, learner: PromptLearner) -> dict[str, Any]:
    return {
        "fit": fit.id,
        "method": fit.method.name,
        "recipe": json_form(fit.method, recorded=True),
        "backbone": counted(backbone.spec),
        "dataset": data.spec.name,
        "classes": list(data.classes),
        "classes_digest": digest(list(data.classes)),
        "class_set": fit.classes,
        "template": data.template,
        "seed": fit.seed,
        "shots": fit.shots,
        "train_eps": fit.train_eps,
        "num_parameters": learner.num_parameters,
        "digest": digest_of(learner.state()),
        "collapsed": False,
        "warnings": [],
        "sample_ids": [],
        "history": [],
        "seconds": 0.0,
        **dataclasses.asdict(Passes()),
    }
