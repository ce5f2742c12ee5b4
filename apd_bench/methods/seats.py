"""Stand-ins for student, teacher and adversary that ask instead of computing, so that several seeds ask at once.

An objective is not written for this. It is called with the stand-ins of one seed, and its first question without an
answer ends the call. When every seed has a question, the questions are answered in one pass, and each objective is
called again from its start with the answers so far; what it computes by itself, on logits, costs next to nothing. So
the terms are exactly those of each seed: nothing is averaged over seeds, and each attack draws the noise that it would
draw alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from apd_bench import joint
from apd_bench.classifier import BoundModel, Output
from apd_bench.errors import IncompatibleChoice
from apd_bench.methods.adversary import InnerAdversary, ascend_all, named_loss
from apd_bench.methods.counted import Counted, Passes
from apd_bench.methods.objective import Attacked, Predictor


@dataclass(frozen=True)
class Question:
    """The output of `model` on `pixels` [B, 3, H, W]; with `adversary`, images within its budget that raise `loss`."""

    model: Predictor
    pixels: Tensor
    gradients: bool
    adversary: InnerAdversary | None = None
    loss: Attacked | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for questions that can be answered in one pass."""
        model = self.model
        form = joint.form(model.model) if isinstance(model, Counted) else (type(model),)
        return self.adversary is not None, self.gradients, form


class Unanswered(BaseException):
    """Ends the call of an objective whose next question is still open; no `except Exception` holds it."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = question


@dataclass
class Answers:
    """What one seed's objective has been told in this step, in the order in which it asks."""

    known: list[Any] = field(default_factory=list)
    _turn: int = 0

    def rewind(self) -> None:
        """The objective is called again from its start."""
        self._turn = 0

    def to(self, question: Question) -> Any:
        """The answer where it is known; else the call of the objective ends here."""
        self._turn += 1
        if self._turn > len(self.known):
            raise Unanswered(question)
        return self.known[self._turn - 1]


class Seat(Counted):
    """One seed's bound model."""

    def __init__(self, model: BoundModel, passes: Passes, answers: Answers) -> None:
        super().__init__(model, passes)
        self.answers = answers

    def __call__(self, pixels: Tensor) -> Output:
        """The prediction for pixels [B, 3, H, W]."""
        output: Output = self.answers.to(Question(self, pixels, torch.is_grad_enabled()))
        return output


@dataclass(frozen=True)
class SeatedAdversary:
    """One seed's adversary; `own` is the one that it would have alone."""

    own: InnerAdversary
    answers: Answers

    def __call__(
        self,
        pixels: Tensor,
        labels: Tensor,
        *,
        target: Tensor | None = None,
        loss: Attacked | None = None,
        against: Predictor | None = None,
    ) -> Tensor:
        """Adversarial images [B, 3, H, W]; `pixels` themselves for a budget of 0."""
        if self.own.eps == 0:
            return pixels
        raised = loss if loss is not None else named_loss(str(self.own.options["loss"]), labels, target)
        model = self.own.student if against is None else against
        attacked: Tensor = self.answers.to(Question(model, pixels, torch.is_grad_enabled(), self.own, raised))
        return attacked


def answer(questions: Mapping[int, Question]) -> dict[int, Any]:
    """The answer to each question by its key, in as few passes as their kinds allow."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for key, question in questions.items():
        groups.setdefault(question.kind, []).append(key)
    found: dict[int, Any] = {}
    for keys in groups.values():
        found |= dict(zip(keys, _in_one_pass([questions[key] for key in keys]), strict=True))
    return found


def _in_one_pass(questions: Sequence[Question]) -> Sequence[Any]:
    models, pixels = [question.model for question in questions], [question.pixels for question in questions]
    adversaries = [question.adversary for question in questions if question.adversary is not None]
    with torch.set_grad_enabled(questions[0].gradients):
        if not adversaries:
            return _outputs(models, pixels)
        try:
            return ascend_all(
                lambda images: _outputs(models, images),
                pixels,
                [question.loss for question in questions if question.loss is not None],
                eps=adversaries[0].eps,
                options=adversaries[0].options,
                generators=[adversary.generator for adversary in adversaries],
            )
        except Unanswered as error:
            raise IncompatibleChoice("The loss of an inner attack asks a model by itself: train one by one.") from error


def _outputs(models: Sequence[Predictor], pixels: Sequence[Tensor]) -> Sequence[Any]:
    """The output of each model on its own images: in one pass for bound models, one by one for anything else."""
    counted = [model for model in models if isinstance(model, Counted)]
    if len(counted) < len(models):
        return [model(images) for model, images in zip(models, pixels, strict=True)]
    outputs = joint.predict([model.model for model in counted], pixels)
    for model, output in zip(counted, outputs, strict=True):
        model.passes.add(len(output.logits), 1, int(output.image_features.requires_grad))
    return outputs
