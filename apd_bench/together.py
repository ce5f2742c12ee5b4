"""Several seeds of one method, trained in one batch: a batch of 32 leaves a GPU half idle, three of them do not.

Each seed keeps all that is its own (start, order, noise, loss, gradients, optimiser); only the towers run for all of
them at once (`joint`), on what their objectives ask for (`methods.seats`). Larger matrix products may be rounded
otherwise, and training magnifies that; so a card says with which seeds its own was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from apd_bench import joint
from apd_bench.classifier import PromptedModel
from apd_bench.data.splits import LoadedDataset
from apd_bench.descent import Progress, Run
from apd_bench.errors import IncompatibleChoice
from apd_bench.methods.adversary import InnerAdversary
from apd_bench.methods.counted import Counted
from apd_bench.methods.objective import Batch, Objective, Terms
from apd_bench.methods.seats import Answers, Question, Seat, SeatedAdversary, Unanswered, answer
from apd_bench.specs import Fit, MethodRecipe
from apd_bench.states import PromptState
from apd_bench.training import build_objective, train

if TYPE_CHECKING:
    from apd_bench.backbones.adapter import Backbone

TOGETHER = "trained_together"


def fit_together(
    fits: Sequence[Fit],
    backbone: Backbone,
    data: LoadedDataset,
    *,
    device: str | torch.device = "cpu",
    on_progress: Progress | None = None,
) -> list[PromptState]:
    """The prompt state of each of `fits`, which differ by their seed alone; each card names all of their seeds.

    Raises IncompatibleChoice when the method cannot be trained so.
    """
    reason = why_apart(fits[0].method)
    if reason:
        raise IncompatibleChoice(f"{reason}.", hint="Train the seeds one after the other.")
    states = train(fits, backbone, data, terms_of, device=device, on_progress=on_progress)
    for state in states:
        state.card[TOGETHER] = [fit.seed for fit in fits]
    return states


def why_apart(recipe: MethodRecipe) -> str:
    """Why the seeds of a method have to be trained one after the other, or ""."""
    if not recipe.trains:
        return f"{recipe.name} trains nothing"
    if not declares(build_objective(recipe)):
        return f"the objective of {recipe.name} does not say that seeds may be trained together"
    return ""


def declares(objective: Objective) -> bool:
    """Whether the very class of `objective` says `trains_together`: a parent speaks for its own loss alone."""
    return "trains_together" in vars(type(objective)) and bool(objective.trains_together)


def terms_of(runs: Sequence[Run], batches: Sequence[Batch], noises: Sequence[torch.Generator]) -> list[Terms]:
    """The terms of each run on its own batch; towers and inner attacks see the batches of all runs at once."""
    answers = [Answers() for _ in runs]
    students = _seats(runs, [run.model for run in runs], answers)
    teachers = _teachers(runs, answers)
    adversaries = [
        SeatedAdversary(InnerAdversary(student.detached(), run.eps, run.recipe.inner_attack, noise), known)
        for student, run, noise, known in zip(students, runs, noises, answers, strict=True)
    ]
    found: dict[int, Terms] = {}
    while len(found) < len(runs):
        questions: dict[int, Question] = {}
        for place, run in enumerate(runs):
            if place not in found:
                answers[place].rewind()
                try:
                    found[place] = run.objective(students[place], batches[place], adversaries[place], teachers[place])
                except Unanswered as unanswered:
                    questions[place] = unanswered.question
        for place, told in answer(questions).items():
            answers[place].known.append(told)
    return [found[place] for place in range(len(runs))]


def _seats(runs: Sequence[Run], models: Sequence[PromptedModel], answers: Sequence[Answers]) -> list[Seat]:
    """The models with their prompts and text features of this step."""
    for run in runs:
        run.passes.text_forwards += 1
    return [Seat(bound, run.passes, known) for bound, run, known in zip(joint.bind(models), runs, answers, strict=True)]


def _teachers(runs: Sequence[Run], answers: Sequence[Answers]) -> Sequence[Seat | None]:
    online = [run.teacher for run in runs if isinstance(run.teacher, PromptedModel)]
    if len(online) == len(runs):
        return _seats(runs, online, answers)
    return [
        Seat(run.teacher.model, run.passes, known) if isinstance(run.teacher, Counted) else None
        for run, known in zip(runs, answers, strict=True)
    ]
