"""What a long class list costs in memory: the text tower while training and attacking, and AutoAttack's FAB.

Ours encodes the classes in chunks and recomputes their activations in the backward pass; the usual way keeps those of
all classes. FAB-T looks at the strongest classes; FAB, as it was published first, at a gradient of every class.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from apd_bench.attacks.parse import all_options, parse_attack
from apd_bench.attacks.pgd import pgd
from apd_bench.backbones.adapter import Backbone
from apd_bench.bench.memory import peak
from apd_bench.bench.rows import Row, in_turn
from apd_bench.bench.train import TEMPLATE, class_names
from apd_bench.classifier import BoundModel, Classifier
from apd_bench.methods.recipes import load_recipe
from apd_bench.registry import ATTACKS, resolve_target
from apd_bench.specs import ThreatModel
from apd_bench.states import build_learner

MIB = 2**20
_EPS = 1 / 255


def memory_rows(backbone: Backbone, *, classes: int, batch: int, fab_batch: int, fab: bool = True) -> list[Row]:
    """Peaks in MiB above what was held before: a training step, an attack on a fresh classifier, FAB."""
    rows = [_training(backbone, classes, batch), _attack(backbone, classes, batch)]
    return [*rows, _fab(backbone, classes, fab_batch)] if fab else rows


def _training(backbone: Backbone, classes: int, batch: int) -> Row:
    """The outer step of AdvVLP: text tower, image tower, loss, gradients of all prompts."""
    learner = build_learner(load_recipe("advvlp"), backbone, class_names(classes), TEMPLATE).to(backbone.device)
    tokens, pixels = learner.texts(), _pixels(backbone, batch)
    labels = torch.arange(batch, device=backbone.device) % classes

    def step(chunk: int | None) -> None:
        for parameter in learner.parameters():
            parameter.grad = None
        prompts = learner()
        text = backbone.encode_text(tokens, prompts.text, chunk=chunk)
        model = BoundModel(backbone, prompts, functional.normalize(text, dim=-1))
        functional.cross_entropy(model(pixels).logits, labels).backward()  # type: ignore[no-untyped-call]

    return _pair(
        backbone, f"training step, {classes:,} classes, batch {batch}", lambda: step(classes), lambda: step(None)
    )


def _attack(backbone: Backbone, classes: int, batch: int) -> Row:
    """PGD-2 with its classifier; of the usual way, the text tower in every forward pass, one gradient is enough.

    The learnable prompts of the usual way keep the graph of the text tower, which the attack never needs.
    """
    learner = build_learner(load_recipe("advvlp"), backbone, class_names(classes), TEMPLATE).to(backbone.device)
    tokens, pixels = learner.texts(), _pixels(backbone, batch)

    def usual() -> None:
        x, prompts = pixels.clone().requires_grad_(), learner()
        text = backbone.encode_text(tokens, prompts.text, chunk=classes, checkpoint=False)
        logits = BoundModel(backbone, prompts, functional.normalize(text, dim=-1))(x).logits
        torch.autograd.grad(logits.sum(), x)

    def ours() -> None:
        classifier = Classifier.from_learner(backbone, learner)
        labels = classifier(pixels).argmax(1)
        ids = [str(place) for place in range(batch)]
        pgd(classifier, pixels, labels, ThreatModel(eps=1e-6), sample_ids=ids, steps=2)

    return _pair(backbone, f"attack with its classifier, {classes:,} classes, batch {batch}", usual, ours)


def _fab(backbone: Backbone, classes: int, batch: int) -> Row:
    text = torch.randn(classes, backbone.shapes.embed_dim, generator=torch.Generator().manual_seed(0))
    classifier = Classifier(backbone, functional.normalize(text, dim=-1).to(backbone.device))
    pixels = _pixels(backbone, batch)
    with torch.no_grad():
        labels = classifier(pixels).argmax(1)

    def run(member: str) -> None:
        spec = parse_attack(f"autoattack(members=('{member}',), iterations=1)")
        function = resolve_target(ATTACKS.get(spec.name).target)
        ids = [str(place) for place in range(batch)]
        function(classifier, pixels, labels, ThreatModel(eps=_EPS), sample_ids=ids, **all_options(spec))  # type: ignore[operator]

    row = _pair(
        backbone, f"FAB against FAB-T, {classes:,} classes, batch {batch}", lambda: run("fab"), lambda: run("fab-t")
    )
    images = classes * pixels.numel() * pixels.element_size() / MIB
    return Row(**{name: getattr(row, name) for name in ("part", "what", "ours", "usual", "unit")},
               facts={**row.facts, "gradients of all classes alone, MiB": round(images)})  # fmt: skip


def _pair(backbone: Backbone, what: str, usual: Callable[[], None], ours: Callable[[], None]) -> Row:
    found: dict[str, tuple[float, ...]] = {}
    seconds: dict[str, float] = {}
    for name, work in (("ours", ours), ("usual", usual)):
        with peak(backbone.device) as memory:
            seconds[name] = in_turn({name: work}, 1, str(backbone.device), warm=False)[name][0]
        found[name] = () if memory.bytes is None else (round(memory.bytes / MIB, 1),)
    return Row(
        part="memory",
        what=f"{what}, {backbone.spec.name}",
        ours=found["ours"],
        usual=found["usual"],
        unit="MiB",
        facts={"seconds": f"{seconds['usual']:.1f} / {seconds['ours']:.1f}"},
    )


def _pixels(backbone: Backbone, batch: int) -> torch.Tensor:
    size = backbone.shapes.image_size
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(backbone.device)
