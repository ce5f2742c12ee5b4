"""One training step of AdvVLP, ours and the field's usual one, on the same weights, images, noise and prompts.

The usual step (CoOp-family code: FAP, APT, Multimodal Adversarial Prompt Tuning) runs the text tower on all classes at
the full context length in every forward pass: in each inner attack step, and once more for the update. Ours computes
the text features once a step, cut at the longest end token. Both give the same loss, which is checked.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.load import load_backbone
from apd_bench.methods.adversary import InnerAdversary, ascend
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.classifier import BoundModel, PromptedModel
from apd_bench.training.prompt_states import build_learner
from tests.benchmarks.models import TEMPLATE, VIT_B16, VIT_B32, class_names, noise
from tests.benchmarks.table import Row, in_turn

CASES = (("tiny-clean", 4, 3), ("tiny-clean", 32, 3), (VIT_B32, 4, 1), (VIT_B16, 4, 1))  # name, batch, repeats
EPS = 1 / 255


def rows(quick: bool, device: str) -> Iterator[Row]:
    """An embedded model at two batch sizes, then the shapes of two ViTs; only the embedded model if quick."""
    for name, batch, repeats in CASES[:2] if quick else CASES:
        yield train_row(load_backbone(name, device), batch, repeats=repeats)


def train_row(backbone: Backbone, batch: int, *, classes: int = 100, repeats: int = 3) -> Row:
    """Both steps and the bare passes in turn, after one warm-up, which compares the losses of the steps."""
    recipe, device = load_recipe("advvlp"), backbone.device
    learner = build_learner(recipe, backbone, class_names(classes), TEMPLATE).to(device)
    pixels = noise(backbone, batch)
    labels = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(0)).to(device)
    model, options = PromptedModel(backbone, learner), recipe.inner_attack
    cut, steps = learner.texts(), int(options["steps"])
    full = F.pad(cut, (0, backbone.shapes.context_length - cut.shape[1]))

    def update(loss: Tensor) -> Tensor:
        learner.zero_grad()
        loss.backward()
        return loss.detach()

    def usual() -> Tensor:
        def forward(images: Tensor) -> Tensor:
            prompts = learner()
            text = backbone.encode_text(full, prompts.text, chunk=classes, checkpoint=False)
            return BoundModel(backbone, prompts, F.normalize(text, dim=-1))(images).logits

        def loss(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, reduction="sum")

        random = torch.Generator(device).manual_seed(1)
        attacked = ascend(forward, pixels, loss, eps=EPS, options=options, generator=random)
        return update(F.cross_entropy(forward(attacked), labels))

    def ours() -> Tensor:
        student, random = model.bind(), torch.Generator(device).manual_seed(1)
        attacked = InnerAdversary(student.detached(), EPS, options, random)(pixels, labels)
        return update(F.cross_entropy(student(attacked).logits, labels))

    def limit() -> None:
        student = model.bind()
        images = student.detached()
        for _ in range(steps):
            x = pixels.detach().requires_grad_()
            torch.autograd.grad(images(x).logits.sum(), x)
        update(student(pixels).logits.sum())

    difference = float((usual() - ours()).abs())
    seconds = in_turn({"usual": usual, "ours": ours, "limit": limit}, repeats, str(device), warm=False)
    facts = {
        "text passes": f"{steps + 1} / 1",
        "tokens": f"{full.shape[1]} / {cut.shape[1]}",
        "loss differs by": f"{difference:.1e}",
    }
    what = f"AdvVLP step on {backbone.spec.name}, {classes} classes, batch {batch}"
    return Row(part="train", what=what, **seconds, facts=facts)
