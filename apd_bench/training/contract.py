"""Contract checks of a method, in seconds, on a toy problem: what every registered method must hold, and a plug-in too.

Each check is a function of a `Subject` that returns "" or says what is wrong; `check` runs them all and never stops at
the first.
"""

import dataclasses
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from apd_bench.backbones.adapter import Backbone
from apd_bench.core.errors import UserError
from apd_bench.core.specs import MethodRecipe
from apd_bench.data.splits import LoadedDataset
from apd_bench.methods.adversary import InnerAdversary, ascend
from apd_bench.methods.entry import MethodEntry
from apd_bench.methods.objective import Terms
from apd_bench.methods.recipes import recipe_of
from apd_bench.prompts.base import PromptLearner
from apd_bench.prompts.classifier import Classifier, PromptedModel
from apd_bench.training.fit import build_objective, fit, prepare
from apd_bench.training.loop import learnable, total_loss
from apd_bench.training.prompt_states import PromptState, build_learner, digest_of, restore
from apd_bench.training.toy import toy_backbone, toy_dataset, toy_fit

EPS = 4 / 255
SMALL_STEP = 1e-3
QUICK = {"training": {"epochs": 2, "batch_size": 8, "warmup_epochs": 0}}


@dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it passed, and what is wrong (with the cause) where it did not."""

    name: str
    passed: bool
    detail: str = ""
    seconds: float = 0.0


@dataclass
class Subject:
    """The method under test and the toy problem; `text_calls` counts the text tower's calls during the last fit."""

    recipe: MethodRecipe
    backbone: Backbone
    data: LoadedDataset = field(default_factory=toy_dataset)
    text_calls: int = 0

    def train(self, seed: int = 1, **changes: Any) -> PromptState:
        """A short fit, with some fields of the recipe changed."""
        recipe = dataclasses.replace(self.recipe, **changes)
        plan = toy_fit(recipe, self.backbone, self.data, seed=seed, eps=EPS if recipe.trains else None)
        with _counted_text(self.backbone) as calls:
            state = fit(plan, self.backbone, self.data)
        self.text_calls = len(calls)
        return state

    @cached_property
    def state(self) -> PromptState:
        """The fit with seed 1, made once."""
        return self.train()


def check(entry: MethodEntry, *, backbone: Backbone | None = None) -> list[CheckResult]:
    """The results of all checks on a method; none stops at the first that fails."""
    try:
        subject = Subject(recipe_of(entry, QUICK), backbone or toy_backbone())
    except UserError as error:
        return [CheckResult("the recipe can be read", False, str(error))]
    checks = {title: function for title, function in CHECKS.items() if subject.recipe.trains or function in ALWAYS}
    return [result_of(title, function, subject) for title, function in checks.items()]


def result_of(title: str, check: Callable[..., str], *subject: object) -> CheckResult:
    """The result of `check(*subject)`, which gives "" or says what is wrong; whatever it raises fails it."""
    began = time.perf_counter()
    try:
        problem = check(*subject)
    except Exception as error:  # a plug-in may raise anything: that is a failed check, with its place
        place = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    return CheckResult(title, not problem, problem, round(time.perf_counter() - began, 3))


def states_its_numbers(subject: Subject) -> str:
    """Every option of the objective exists and the objective can be built."""
    lacks = subject.recipe.trains and build_objective(subject.recipe).attacks and not subject.recipe.inner_attack
    return "the objective attacks, but the recipe has no [inner_attack] section" if lacks else ""


def one_step_lowers_the_loss(subject: Subject) -> str:
    """A small step down the student's gradient lowers the loss on the same batch and the same adversarial images."""
    run = prepare(toy_fit(subject.recipe, subject.backbone, subject.data, eps=EPS), subject.backbone, subject.data)
    batch = run.batch(torch.arange(len(run.ids)))
    adversary = InnerAdversary(run.bind(run.model).detached(), EPS, subject.recipe.inner_attack, run.generator("noise"))
    images: list[Tensor] = []

    def attack(pixels: Tensor, labels: Tensor, **options: Any) -> Tensor:
        images.append(adversary(pixels, labels, **options))
        return images[-1]

    before = _student_loss(run.terms(batch, run.generator("noise"), attack))
    if not before.isfinite():
        return f"the loss of the first step is {float(before)}"
    parameters = learnable(run.model)
    gradients = torch.autograd.grad(before, parameters, allow_unused=True)
    norm = torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
    if not norm > 0:
        return f"the gradient of the loss has norm {float(norm)}"
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.sub_(SMALL_STEP * gradient / norm)
        again = iter(images)
        after = _student_loss(run.terms(batch, run.generator("noise"), lambda *_, **__: next(again)))
    return "" if after < before else f"the loss went from {before:.7f} to {after:.7f} after a small step downhill"


def trains_its_prompts_alone(subject: Subject) -> str:
    """Training changes every learned tensor and nothing of the backbone."""
    weights = [parameter.detach().clone() for parameter in subject.backbone.parameters()]
    start = build_learner(subject.recipe, subject.backbone, subject.data.classes, subject.data.template, seed=1).state()
    state = subject.state
    if not all(torch.equal(old, new) for old, new in zip(weights, subject.backbone.parameters(), strict=True)):
        return "training changed the weights of the backbone"
    if any(parameter.requires_grad for parameter in subject.backbone.parameters()):
        return "training left parameters of the backbone with requires_grad"
    same = [name for name, tensor in state.state.items() if tensor.numel() and torch.equal(tensor, start[name])]
    return f"these tensors did not change: {', '.join(same)}" if same else ""


def seeds_decide(subject: Subject) -> str:
    """The same seed gives the same bits, another seed another prompt."""
    digest = digest_of(subject.state.state)
    if digest_of(subject.train().state) != digest:
        return "two fits with the same seed differ: use the generators that are handed in, not the global one"
    return "" if digest_of(subject.train(seed=2).state) != digest else "two seeds gave the same prompt"


def survives_saving(subject: Subject) -> str:
    """A learner rebuilt from its card and tensors gives the same logits, also after a detour over other classes."""
    pixels = subject.data.test.pixels(range(4))
    learner = restore(subject.state, subject.backbone)
    direct = _logits(subject, learner, pixels)
    again = restore(subject.state, subject.backbone)
    if not torch.equal(direct, _logits(subject, again, pixels)):
        return "the logits change when the state is loaded again"
    if subject.recipe.learner_options.get("class_specific"):
        again.rebind(subject.data.classes[:2])  # class-wise prompts know no other classes
        return "" if _logits(subject, again, pixels).shape[1] == 2 else "rebind did not change the classes"
    again.rebind(("cat", "a longer name"), "a drawing of a {}.")
    if _logits(subject, again, pixels).shape[1] != 2:
        return "rebind did not change the number of classes"
    again.rebind(subject.data.classes, subject.data.template)
    difference = float((direct - _logits(subject, again, pixels)).abs().max())
    return "" if difference == 0 else f"the logits move by {difference:.2e} after rebinding to the same classes"


def attack_spares_the_text_tower(subject: Subject) -> str:
    """An attack on the finished classifier never calls the text tower, and its gradient reaches the pixels."""
    learner = restore(subject.state, subject.backbone)
    classifier = Classifier.from_learner(subject.backbone, learner)
    pixels = subject.data.test.pixels(range(4))
    options, generator = {"steps": 2, "step": 1.0, "start": "uniform"}, torch.Generator().manual_seed(0)
    with _counted_text(subject.backbone) as calls:
        attacked = ascend(
            classifier, pixels, lambda z: z.logsumexp(1).sum() - z[:, 0].sum(), eps=EPS, options=options,
            generator=generator,
        )  # fmt: skip
    if calls:
        return f"the text tower was called {len(calls)} times during an attack"
    return "" if not torch.equal(attacked, pixels) else "the attack could not move any pixel: no gradient"


def trains_without_the_text_tower_in_its_attack(subject: Subject) -> str:
    """The text tower runs once a step (and model), however many steps the inner attack takes."""
    attack = dict(subject.recipe.inner_attack)
    if not attack or subject.recipe.objective_options.get("strategy") == "perturbed":
        return ""  # nothing attacked, or a method whose attack moves the text by design
    calls = subject.text_calls  # of the last fit, which had as many steps
    subject.train(inner_attack=attack | {"steps": int(attack["steps"]) + 3})
    more = subject.text_calls - calls
    return "" if not more else f"{more} more text passes with 3 more attack steps"


ALWAYS = (states_its_numbers, survives_saving, attack_spares_the_text_tower)
CHECKS: dict[str, Callable[[Subject], str]] = {
    "recipe and objective fit together": states_its_numbers,
    "only its prompts are trained, and all of them": trains_its_prompts_alone,
    "one step lowers its own loss": one_step_lowers_the_loss,
    "the seed decides": seeds_decide,
    "saving, loading and rebinding keep the logits": survives_saving,
    "an attack never calls the text tower": attack_spares_the_text_tower,
    "the inner attack never calls the text tower": trains_without_the_text_tower_in_its_attack,
}


def _student_loss(terms: Terms) -> Tensor:
    """The loss without the terms of an online teacher, which is trained by its own gradient."""
    return total_loss({name: value for name, value in terms.items() if not name.startswith("teacher_")})


def _logits(subject: Subject, learner: PromptLearner, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return PromptedModel(subject.backbone, learner).bind()(pixels).logits


@contextmanager
def _counted_text(backbone: Backbone) -> Iterator[list[int]]:
    """Collects one entry for each call of the backbone's text tower."""
    calls: list[int] = []
    original = backbone.encode_text

    def counting(tokens: Tensor, *arguments: object, **options: object) -> Tensor:
        calls.append(len(tokens))
        return original(tokens, *arguments, **options)  # type: ignore[arg-type]

    backbone.encode_text = counting  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        del backbone.encode_text
