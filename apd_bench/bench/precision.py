"""How many verdicts an attack in short arithmetic changes: the same samples, noise and steps, in fp32 and in bf16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apd_bench.attacks.parse import parse_attack
from apd_bench.backbones.adapter import Backbone
from apd_bench.bench.rows import Row
from apd_bench.classifier import Classifier
from apd_bench.data.load import load_dataset
from apd_bench.data.protocols import limit_split
from apd_bench.evaluation import CellResult, evaluate_samples
from apd_bench.methods.recipes import load_recipe
from apd_bench.registry import DATASETS
from apd_bench.specs import ThreatModel, format_eps
from apd_bench.states import build_learner

HEADER = (
    "model", "set", "eps", "attack", "images", "clean, %", "fp32: robust, %", "bf16: robust, %", "verdicts changed",
    "broken in fp32 alone", "broken in bf16 alone", "attacked again in fp32", "wall s, fp32 / bf16",
)  # fmt: skip
LEGEND = (
    "Zero-shot classification. In bf16 only the attack's passes are short; the clean prediction and the verdict are "
    "those of the float32 model, and a sample that the short model calls broken and the full one does not is attacked "
    "again in float32. PGD is a search: another rounding is another path, so both columns *alone* can be above 0."
)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One attack on one set, in fp32 and in bf16."""

    backbone: str
    dataset: str
    eps: float
    attack: str
    images: int
    clean: float
    full: float
    short: float
    changed: int
    full_alone: int
    short_alone: int
    again: int
    full_seconds: float
    short_seconds: float


def changes(
    backbone: Backbone, datasets: Sequence[str], attacks: Sequence[str], eps: float, limit: int
) -> list[Change]:
    """Every attack on `limit` fixed test samples of every set."""
    found = []
    for name in datasets:
        data = load_dataset(DATASETS.get(name), image_size=backbone.shapes.image_size)
        test = limit_split(data.test, limit)
        learner = build_learner(load_recipe("zero_shot"), backbone, data.classes, data.template)
        full = Classifier.from_learner(backbone, learner)
        for text in attacks:
            spec, threat = parse_attack(text), ThreatModel(eps=eps)
            results = [
                evaluate_samples(model, test, spec, threat, batch_size=100, device=backbone.device)
                for model in (full, full.in_precision("bf16"))
            ]
            found.append(_change(backbone.spec.name, name, eps, spec.label, *results))
    return found


def _change(backbone: str, dataset: str, eps: float, attack: str, full: CellResult, short: CellResult) -> Change:
    one, two = full.outcomes.broken, short.outcomes.broken
    return Change(
        backbone=backbone, dataset=dataset, eps=eps, attack=attack, images=len(one), clean=full.clean_accuracy,
        full=full.robust_accuracy, short=short.robust_accuracy, changed=int((one != two).sum()),
        full_alone=int((one & ~two).sum()), short_alone=int((two & ~one).sum()),
        again=int(short.effective.get("attacked_again", 0)),
        full_seconds=float(full.timing["attack_seconds"]), short_seconds=float(short.timing["attack_seconds"]),
    )  # fmt: skip


def row(items: Sequence[Change]) -> Row:
    """One model's changes as one row; the usual side is fp32."""
    images = sum(item.images for item in items)
    mean = [100 * sum(getattr(item, name) * item.images for item in items) / images for name in ("full", "short")]
    return Row(
        part="precision",
        what=f"attack in bf16 instead of fp32, {items[0].backbone}, {images} verdicts",
        usual=(sum(item.full_seconds for item in items),),
        ours=(sum(item.short_seconds for item in items),),
        unit="s wall",
        facts={
            "verdicts changed": sum(item.changed for item in items),
            "attacked again": sum(item.again for item in items),
            "robust accuracy, %": f"{mean[0]:.1f} / {mean[1]:.1f}",
        },
    )


def markdown(items: Sequence[Change]) -> str:
    """The changes as a table, with their sum."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    for item in items:
        cells = (
            item.backbone, item.dataset, format_eps(item.eps), item.attack, str(item.images),
            *(f"{100 * value:.1f}" for value in (item.clean, item.full, item.short)),
            *(str(value) for value in (item.changed, item.full_alone, item.short_alone, item.again)),
            f"{item.full_seconds:.1f} / {item.short_seconds:.1f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    images, changed = sum(item.images for item in items), sum(item.changed for item in items)
    total = f"Together: {changed} of {images} verdicts changed ({100 * changed / max(images, 1):.2f} %)."
    return "\n".join([*lines, "", total, "", LEGEND])
