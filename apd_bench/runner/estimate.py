"""What a cell costs before it has run: passes through the model by attack, from its options. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from apd_bench.core.registry import ATTACKS, DEFENCES
from apd_bench.core.specs import AttackSpec, Cell, DatasetSpec, Fit

BACKWARD = 2.0  # a backward pass costs about two forward passes
_SAMPLES = 1000  # assumed where a set does not say how many test images it has
# Image passes (forwards, backwards) of AutoAttack's members per sample, iteration and target class: measured on samples
# that resist. Square costs its queries.
_MEMBERS = {
    **dict.fromkeys(("apgd-ce", "apgd-dlr", "apgd-t"), (1.0, 1.0)),
    **dict.fromkeys(("fab", "fab-t"), (19 / 9, 1.0)),
}
_TARGETED = ("apgd-t", "fab-t")
_EACH_TARGET = ("pgd-t", "apgd-t")
_VERDICTS = 10  # predictions of a random defence that judge an image and its example
_DRAWS = 2  # that a gradient of a random defence is the mean over: measured on the embedded models
_CLOSE = 0.25  # of the samples that resist, those that apgd-close attacks: measured on the embedded models


def passes_per_sample(attack: AttackSpec, eps: float = 1.0) -> tuple[float, float]:
    """Forward and backward image passes that one resisting sample costs, the clean prediction included."""
    if eps == 0 or attack.name in ("none", "clean"):
        return 1.0, 0.0
    entry = ATTACKS.get(attack.name)
    options = {**entry.defaults, **attack.options}
    if "members" in options:
        names = options["members"]
        members = [_member(name, options) for name in ([names] if isinstance(names, str) else names)]
        return sum(item[0] for item in members), sum(item[1] for item in members)
    steps = float(options.get("targets", 1)) if attack.name in _EACH_TARGET else 1.0
    if "order" in options:  # a suite
        close = _CLOSE * (3 + options["targets"])  # a run three times as long, and one for each target
        runs = {"apgd-t": options["targets"], "apgd-near": options["near"], "apgd-close": close}
        steps = float(sum(runs.get(name, 1) for name in options["order"]))
    for name in ("steps", "restarts", "n_restarts", "searches", "draws"):
        value = options.get(name)
        if isinstance(value, (int, float)) and value > 0:
            steps *= float(value)
    if not entry.gradient:
        return steps + 1.0, 0.0
    if entry.kind == "distance":  # two searches, a gradient for each target class, a bisection
        steps = 2 * steps + float(options.get("targets", 0))
        return steps + 13.0, steps
    return steps + 2.0, steps


def member_passes(attack: AttackSpec, member: str) -> float:
    """Image passes, forward and backward, of one member of an AutoAttack for a sample that resists; 0 if unknown."""
    options = {**ATTACKS.get(attack.name).defaults, **attack.options} if attack.name in ATTACKS.names() else {}
    return sum(_member(member, options)) if "members" in options else 0.0


def _member(name: str, options: Mapping[str, Any]) -> tuple[float, float]:
    if name == "square":
        return float(options["queries"]), 0.0
    each = float(options["iterations"]) * (options["targets"] if name in _TARGETED else 1) * options.get("eot", 1)
    forwards, backwards = _MEMBERS.get(name, (0.0, 0.0))
    return each * forwards, each * backwards


def _adaptive(options: Mapping[str, Any], each: tuple[float, float]) -> tuple[float, float]:
    """The passes of the adaptive attack where a prediction takes `each`: runs without the defence and through it."""
    bare = options["iterations"] * (2 + options["near"] + options["targets"])
    through = _DRAWS * options["iterations"] * (options["near"] + 1)  # each with the model's gradient, and replayed
    predictions = 2 * through + _DRAWS * options["queries"] + _VERDICTS * (options["near"] + 8)
    return bare + predictions * each[0], bare + through * (1 + each[0]) + predictions * each[1]


def samples_of(cell: Cell) -> int:
    """How many test samples the cell has, as far as its specs say."""
    available = _share(images_of(cell), cell.classes)
    return min(available, cell.limit) if cell.limit is not None else available


def images_of(cell: Cell) -> int:
    """How many images the cell's split has in all classes, as far as the set's card says."""
    counts = cell.dataset.counts
    if cell.split != "held_out" or not counts:
        return counts.get(cell.split, _SAMPLES if not counts or cell.split == "test" else 0)
    return counts.get("val", 0) + max(counts.get("train", 0) - drawn_by(cell.fit, cell.dataset), 0)


def drawn_by(fit: Fit, dataset: DatasetSpec) -> int:
    """How many training images of `dataset` a fit learns from, at most."""
    if not fit.method.trains or fit.dataset.name != dataset.name:
        return 0
    images = dataset.counts.get("train", _SAMPLES)
    return images if fit.shots < 0 else min(images, fit.shots * (dataset.num_classes or 10))


def _share(images: int, classes: str) -> int:
    """Of all images of a set, those of a part of its classes: about half."""
    return images if classes == "all" else -(-images // 2)


def passes_of(work: Cell | Fit) -> tuple[float, float]:
    """Forward and backward image passes: of a cell if every sample resists, of training by epochs and inner steps."""
    if isinstance(work, Cell):
        forwards, backwards = passes_per_sample(work.attack, work.threat.eps)
        if work.defence is not None:
            each = DEFENCES.get(work.defence.name).passes(work.defence.options)
            if work.threat.knowledge == "undefended":
                forwards, backwards = forwards + _VERDICTS * each[0], backwards + _VERDICTS * each[1]
            elif work.threat.eps:
                forwards, backwards = _adaptive({**ATTACKS.get(work.attack.name).defaults, **work.attack.options}, each)
        return forwards * samples_of(work), backwards * samples_of(work)
    if not work.method.trains:
        return 0.0, 0.0
    images = _share(drawn_by(work, work.dataset), work.classes)
    each = images * float(work.method.training.get("epochs", 1)) * (work.method.inner_attack.get("steps", 0) + 2.0)
    return each, each


def cost_of(work: Cell | Fit) -> float:
    """The cost of a cell or a fit in forward passes of one image, for ordering and for the time left."""
    forwards, backwards = passes_of(work)
    return forwards + BACKWARD * backwards
