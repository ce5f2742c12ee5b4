"""What a long class list costs in memory: the text tower while training and attacking, and AutoAttack's FAB.

Ours encodes the classes in chunks and recomputes their activations in the backward pass; the usual way keeps those of
all classes. FAB-T looks at the strongest classes; FAB, as it was published first, at a gradient of every class.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch.nn import functional

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.load import load_backbone
from apd_bench.core.specs import ThreatModel
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.classifier import BoundModel, Classifier
from apd_bench.training.prompt_states import build_learner
from tests.benchmarks.models import TEMPLATE, VIT_B32, attack, class_names, made_up
from tests.benchmarks.table import Row, clock, peak


def rows(quick: bool, device: str) -> Iterator[Row]:
    """1,000 classes at batch 4; FAB with a gradient for every class is measured on the embedded model alone."""
    for name in ("tiny-clean",) if quick else ("tiny-clean", VIT_B32):
        backbone = load_backbone(name, device)
        yield from memory_rows(backbone, classes=1000, batch=4)
        if name == "tiny-clean":
            yield _fab(backbone, classes=1000, batch=4)


def memory_rows(backbone: Backbone, *, classes: int, batch: int) -> Iterator[Row]:
    """The outer step of AdvVLP, and PGD-2 with its classifier.

    Of the usual attack, with the text tower in every forward pass, one gradient is enough; the learnable prompts keep
    the graph of the text tower, which the attack never needs.
    """
    learner = build_learner(load_recipe("advvlp"), backbone, class_names(classes), TEMPLATE).to(backbone.device)
    tokens, samples = learner.texts(), made_up(backbone, batch)
    labels = torch.arange(batch, device=backbone.device) % classes

    def bound(chunk: int | None, checkpoint: bool) -> BoundModel:
        prompts = learner()
        text = backbone.encode_text(tokens, prompts.text, chunk=chunk, checkpoint=checkpoint)
        return BoundModel(backbone, prompts, functional.normalize(text, dim=-1))

    def step(chunk: int | None) -> None:
        learner.zero_grad()
        functional.cross_entropy(bound(chunk, True)(samples.pixels).logits, labels).backward()

    def usual_attack() -> None:
        x = samples.pixels.clone().requires_grad_()
        torch.autograd.grad(bound(classes, False)(x).logits.sum(), x)

    def our_attack() -> None:
        classifier = Classifier.from_learner(backbone, learner)
        labels = classifier(samples.pixels).argmax(1)
        attack("pgd(steps=2)", replace(samples, classifier=classifier, labels=labels), ThreatModel(eps=1e-6))

    shape = f"{classes:,} classes, batch {batch}"
    yield _row(backbone, f"training step, {shape}", lambda: step(classes), lambda: step(None))
    yield _row(backbone, f"attack with its classifier, {shape}", usual_attack, our_attack)


def _fab(backbone: Backbone, *, classes: int, batch: int) -> Row:
    samples = made_up(backbone, batch, classes)

    def run(member: str) -> None:
        attack(f"autoattack(members=('{member}',), iterations=1)", samples, ThreatModel(eps=1 / 255))

    what = f"FAB against FAB-T, {classes:,} classes, batch {batch}"
    row = _row(backbone, what, lambda: run("fab"), lambda: run("fab-t"))
    gradients = round(classes * samples.pixels.numel() * 4 / 2**20)
    return replace(row, facts={**row.facts, "gradients of all classes alone, MiB": gradients})


def _row(backbone: Backbone, what: str, usual: Callable[[], None], ours: Callable[[], None]) -> Row:
    held, seconds, device = {}, {}, str(backbone.device)
    for name, work in (("ours", ours), ("usual", usual)):
        began = clock(device)
        with peak(device) as most:
            work()
        held[name], seconds[name] = tuple(most), clock(device) - began
    facts = {"seconds": f"{seconds['usual']:.1f} / {seconds['ours']:.1f}"}
    return Row(part="memory", what=f"{what}, {backbone.spec.name}", unit="MiB", **held, facts=facts)
