"""One training step of AdvVLP, ours and the field's usual one, on the same weights, images, noise and prompts.

The usual step (CoOp-family code: FAP, APT, Multimodal Adversarial Prompt Tuning) runs the text tower on all classes at
the full context length in every forward pass: in each inner attack step, and once more for the update. Ours computes
the text features once a step, cut at the longest end token. Both give the same loss, which is checked.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from apd_bench.backbones.adapter import Backbone
from apd_bench.bench.rows import Row, in_turn
from apd_bench.classifier import BoundModel, PromptedModel
from apd_bench.methods.adversary import InnerAdversary, ascend
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.base import PromptLearner
from apd_bench.specs import Options
from apd_bench.states import build_learner

EPS = 1 / 255
TEMPLATE = "a photo of a {}."
_WORDS = ["river", "stone", "cloud", "engine", "window", "garden", "copper", "violin", "harbour", "lantern"]


@dataclass(frozen=True)
class Comparison:
    """Seconds of both steps at one batch size, in the order they were run, and what each one computed."""

    backbone: str
    device: str
    batch: int
    classes: int
    context_length: int
    cut_length: int
    usual_seconds: tuple[float, ...]
    our_seconds: tuple[float, ...]
    usual_text_passes: int
    our_text_passes: int
    loss_difference: float
    limit_seconds: tuple[float, ...] = ()

    @property
    def ratio(self) -> float:
        """How many of our steps fit into one usual step, by the medians."""
        return statistics.median(self.usual_seconds) / statistics.median(self.our_seconds)


def class_names(count: int) -> tuple[str, ...]:
    """`count` different names of two short words."""
    pairs = (f"{first} {second}" for first in _WORDS for second in _WORDS)
    names = list(pairs)
    return tuple(names[place % len(names)] + (f" {place // len(names)}" if place >= len(names) else "")
                 for place in range(count))  # fmt: skip


def compare(backbone: Backbone, batch: int, *, classes: int = 100, repeats: int = 3) -> Comparison:
    """Both steps, one after the other, `repeats` times after one warm-up each (which also compares their losses)."""
    recipe = load_recipe("advvlp")
    names = class_names(classes)
    device = backbone.device
    learner = build_learner(recipe, backbone, names, TEMPLATE).to(device)
    size = backbone.shapes.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(batch, 3, size, size, generator=generator).to(device)
    labels = torch.randint(classes, (batch,), generator=generator).to(device)
    model = PromptedModel(backbone, learner)
    tokens = learner.texts()
    full = F.pad(tokens, (0, backbone.shapes.context_length - tokens.shape[1]))

    def usual() -> Tensor:
        return usual_step(backbone, learner, full, pixels, labels, recipe.inner_attack)

    def ours() -> Tensor:
        return our_step(model, pixels, labels, recipe.inner_attack)

    steps = int(recipe.inner_attack["steps"])

    def limit() -> None:
        passes_alone(model, pixels, steps)

    difference = float((usual() - ours()).abs())
    seconds = in_turn({"usual": usual, "ours": ours, "limit": limit}, repeats, str(device), warm=False)
    return Comparison(
        backbone=backbone.spec.name,
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads",
        batch=batch,
        classes=classes,
        context_length=full.shape[1],
        cut_length=tokens.shape[1],
        usual_seconds=seconds["usual"],
        our_seconds=seconds["ours"],
        limit_seconds=seconds["limit"],
        usual_text_passes=steps + 1,
        our_text_passes=1,
        loss_difference=difference,
    )


def our_step(model: PromptedModel, pixels: Tensor, labels: Tensor, options: Options) -> Tensor:
    """Forward and backward of one adversarial step with text features that are computed once."""
    student = model.bind()
    noise = torch.Generator(pixels.device).manual_seed(1)
    attacked = InnerAdversary(student.detached(), EPS, options, noise)(pixels, labels)
    return _update(F.cross_entropy(student(attacked).logits, labels), model.learner)


def usual_step(
    backbone: Backbone,
    learner: PromptLearner,
    tokens: Tensor,
    pixels: Tensor,
    labels: Tensor,
    options: Options,
) -> Tensor:
    """The same step with the text tower in every forward pass, at full length, and no chunks."""

    def forward(images: Tensor) -> Tensor:
        prompts = learner()
        text = backbone.encode_text(tokens, prompts.text, chunk=len(tokens), checkpoint=False)
        return BoundModel(backbone, prompts, F.normalize(text, dim=-1))(images).logits

    attacked = ascend(
        forward,
        pixels,
        lambda logits: F.cross_entropy(logits, labels, reduction="sum"),
        eps=EPS,
        options=options,
        generator=torch.Generator(pixels.device).manual_seed(1),
    )
    return _update(F.cross_entropy(forward(attacked), labels), learner)


def _update(loss: Tensor, learner: PromptLearner) -> Tensor:
    for parameter in learner.parameters():
        parameter.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def passes_alone(model: PromptedModel, pixels: Tensor, steps: int) -> None:
    """The passes that a step cannot do without: the text tower once, the image tower once more than there are steps."""
    student = model.bind()
    images = student.detached()
    for _ in range(steps):
        x = pixels.detach().requires_grad_()
        torch.autograd.grad(images(x).logits.sum(), x)
    _update(student(pixels).logits.sum(), model.learner)


def row(step: Comparison) -> Row:
    """A comparison in the form that all parts share."""
    return Row(
        part="train",
        what=f"AdvVLP step on {step.backbone}, {step.classes} classes, batch {step.batch}",
        usual=step.usual_seconds,
        ours=step.our_seconds,
        limit=step.limit_seconds,
        facts={
            "text passes": f"{step.usual_text_passes} / {step.our_text_passes}",
            "tokens": f"{step.context_length} / {step.cut_length}",
            "loss differs by": f"{step.loss_difference:.1e}",
        },
    )


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as a table; seconds are medians with the range."""
    header = ["backbone", "device", "classes", "batch", "usual step, s", "our step, s", "ratio"]
    header += ["text passes", "tokens", "loss differs by"]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for row in comparisons:
        usual, ours = (
            f"{statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f})"
            for times in (row.usual_seconds, row.our_seconds)
        )
        lines.append(
            f"| {row.backbone} | {row.device} | {row.classes} | {row.batch} | {usual} | {ours} | {row.ratio:.1f}x "
            f"| {row.usual_text_passes} / {row.our_text_passes} | {row.context_length} / {row.cut_length} "
            f"| {row.loss_difference:.1e} |"
        )
    return "\n".join(lines)
