"""Our attacks and the field's usual ones on the same weights, samples, noise range and budget, in one run.

Repeats are interleaved. Both sides are judged alike: a point outside the ball or the pixel range breaks nothing, and a
prediction without a graph decides. AutoAttack and the suites that stand against it run once; its cost is minutes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from apd_bench.attacks.audit import BUDGET_TOLERANCE
from apd_bench.attacks.libraries import autoattack_standard
from apd_bench.attacks.meter import Meter
from apd_bench.attacks.parse import all_options, parse_attack
from apd_bench.attacks.result import AttackResult
from apd_bench.backbones.adapter import Backbone
from apd_bench.bench import usual_attacks
from apd_bench.bench.memory import peak
from apd_bench.bench.train import TEMPLATE, class_names
from apd_bench.classifier import Classifier
from apd_bench.data.load import load_dataset
from apd_bench.data.protocols import limit_split
from apd_bench.methods.recipes import load_recipe
from apd_bench.registry import ATTACKS, DATASETS, resolve_target
from apd_bench.specs import ThreatModel
from apd_bench.states import build_learner

STEP = 0.25  # of eps: the step of APT's protocol
SUITES = ("worst", "worst.fast")
SEED = 0
Passes = tuple[Tensor, int, int]  # points, forward passes, backward passes


@dataclass(frozen=True)
class Part:
    """The samples of one set and the zero-shot classifier of its classes."""

    data: str
    classifier: Classifier
    pixels: Tensor
    labels: Tensor
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One backbone and one budget on several sets; `trained` False: random weights, whose accuracy means nothing."""

    backbone: str
    eps: float
    parts: tuple[Part, ...]
    trained: bool = True

    @property
    def device(self) -> torch.device:
        """Where the classifiers are."""
        return self.parts[0].pixels.device


@dataclass(frozen=True)
class Side:
    """One attack on all samples of a case: who is broken, image passes, seconds of every repeat, bytes above idle."""

    name: str
    broken: tuple[bool, ...]
    forwards: int
    backwards: int
    seconds: tuple[float, ...]
    memory: int | None

    @property
    def robust(self) -> float:
        """The robust accuracy."""
        return 1 - sum(self.broken) / len(self.broken)

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Pair:
    """The usual attack and ours on one case; `limit` holds the seconds of the same passes with nothing in between."""

    backbone: str
    device: str
    data: tuple[str, ...]
    eps: float
    attack: str
    trained: bool
    clean: float
    ids: tuple[str, ...]
    usual: Side
    ours: Side
    limit: tuple[float, ...] = field(default=())

    @property
    def ratio(self) -> float:
        """How often ours fits into the time of the usual one, by the medians."""
        return self.usual.median / self.ours.median

    @property
    def excess(self) -> float | None:
        """By which share ours takes longer than its passes alone; the median over the interleaved repeats."""
        if not self.limit:
            return None
        return statistics.median(own / pure for own, pure in zip(self.ours.seconds, self.limit, strict=True)) - 1


def embedded_case(backbone: Backbone, eps: float, datasets: Sequence[str], limit: int) -> Case:
    """Zero-shot classification of `limit` fixed test samples of each set."""
    return Case(backbone.spec.name, eps, tuple(_parts(backbone, datasets, limit)))


def _parts(backbone: Backbone, datasets: Sequence[str], limit: int) -> Iterator[Part]:
    for name in datasets:
        data = load_dataset(DATASETS.get(name), image_size=backbone.shapes.image_size)
        test = limit_split(data.test, limit)
        learner = build_learner(load_recipe("zero_shot"), backbone, data.classes, data.template)
        yield Part(
            data=name,
            classifier=Classifier.from_learner(backbone, learner),
            pixels=test.pixels(range(len(test))).to(backbone.device),
            labels=test.labels.to(backbone.device),
            ids=tuple(test.ids),
        )


def random_case(backbone: Backbone, eps: float, batch: int, *, classes: int = 100) -> Case:
    """Made-up images with the predictions as labels: what matters here is time, and nobody ever leaves the batch."""
    learner = build_learner(load_recipe("zero_shot"), backbone, class_names(classes), TEMPLATE)
    classifier = Classifier.from_learner(backbone, learner)
    size = backbone.shapes.image_size
    images = torch.randint(0, 256, (batch, 3, size, size), generator=torch.Generator().manual_seed(SEED))
    pixels = (images.float() / 255).to(backbone.device)
    with torch.no_grad():
        labels = classifier(pixels).argmax(1)
    ids = tuple(f"made-up-{place}" for place in range(batch))
    return Case(backbone.spec.name, eps, (Part("made-up", classifier, pixels, labels, ids),), trained=False)


def compare(case: Case, *, steps: int = 20, repeats: int = 3, suites: Sequence[str] = SUITES) -> Iterator[Pair]:
    """The pairs of one case as they are measured; `suites` are the attacks that stand against standard AutoAttack."""
    options = f"(steps={steps}, step={STEP}, schedule='constant')"

    def usual(attack: Callable[..., Tensor]) -> Callable[[Part], Passes]:
        return _counted(lambda model, x, y: attack(model, x, y, eps=case.eps, steps=steps, step=STEP))

    runs = {
        "limit": _counted(lambda model, x, y: usual_attacks.limit(model, x, steps=steps)),
        "usual": usual(usual_attacks.pgd),
        "to the end": _own(f"pgd{options}", case.eps, persist=True),
        "ours": _own(f"pgd{options}", case.eps),
    }
    if not case.trained:
        del runs["ours"]
    sides = _measure(case, runs, repeats)
    pure = sides["limit"].seconds
    yield _pair(case, f"pgd-{steps}, nobody leaves", sides["usual"], sides["to the end"], pure)
    if not case.trained:
        return
    yield _pair(case, f"pgd-{steps}", sides["usual"], sides["ours"])
    sides = _measure(case, {"usual": usual(usual_attacks.cw), "ours": _own(f"cw{options}", case.eps)}, repeats)
    yield _pair(case, f"cw-{steps}", sides["usual"], sides["ours"])
    if not suites:
        return
    size = max(len(part.ids) for part in case.parts)
    library = _counted(lambda model, x, y: autoattack_standard(model, x, y, case.eps, seed=SEED, batch_size=size))
    sides = _measure(case, {"autoattack": library, **{text: _own(text, case.eps) for text in suites}}, 1)
    for text in suites:
        yield _pair(case, f"{text} / AutoAttack", sides["autoattack"], sides[text])


def _counted(attack: Callable[[usual_attacks.Counted, Tensor, Tensor], Tensor]) -> Callable[[Part], Passes]:
    """A library's attack with its passes; it draws from the global generator, which is forked and seeded."""

    def run(part: Part) -> Passes:
        model = usual_attacks.Counted(part.classifier).eval()
        devices = [part.pixels.device] if part.pixels.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(SEED)
            points = attack(model, part.pixels, part.labels)
        return points, model.forwards, model.backwards

    return run


def _own(text: str, eps: float, *, persist: bool = False) -> Callable[[Part], Passes]:
    """One of our attacks; with `persist` no sample leaves when it is broken."""
    spec = parse_attack(text)
    function = cast("Callable[..., AttackResult]", resolve_target(ATTACKS.get(spec.name).target))
    options, threat = all_options(spec), ThreatModel(eps=eps)

    def run(part: Part) -> Passes:
        meter = Meter(part.classifier)
        meter.persist = persist
        found = function(meter, part.pixels, part.labels, threat, sample_ids=part.ids, seed=SEED, **options)
        return found.adversarials, found.forwards, found.backwards

    return run


def _measure(case: Case, runs: Mapping[str, Callable[[Part], Passes]], repeats: int) -> dict[str, Side]:
    """Every run on every part, the runs taking turns; with several repeats a first, untimed one warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    sides: dict[str, Side] = {}
    for repeat in range(repeats + (repeats > 1)):
        for name, run in runs.items():
            broken: list[bool] = []
            ahead, back, total, memory = 0, 0, 0.0, list[int]()
            for part in case.parts:
                with peak(case.device) as most:
                    began = _clock(case.device)
                    points, forwards, backwards = run(part)
                    total += _clock(case.device) - began
                broken += _broken(part, points, case.eps)
                ahead, back = ahead + forwards, back + backwards
                memory += [] if most.bytes is None else [most.bytes]
            if repeat or repeats == 1:
                seconds[name].append(total)
            held = max(memory, default=None)
            if name in sides and held is not None:
                held = max(held, sides[name].memory or 0)
            sides[name] = Side(name, tuple(broken), ahead, back, tuple(seconds[name]), held)
    return sides


def _broken(part: Part, points: Tensor, eps: float) -> list[bool]:
    """Who is misclassified by a point of the ball; the prediction of the unchanged image counts too."""
    inside = (points - part.pixels).flatten(1).abs().amax(1) <= eps + BUDGET_TOLERANCE
    inside &= ((points >= -BUDGET_TOLERANCE) & (points <= 1 + BUDGET_TOLERANCE)).flatten(1).all(1)
    with torch.no_grad():
        clean, attacked = part.classifier(part.pixels).argmax(1), part.classifier(points).argmax(1)
    broken: list[bool] = ((clean != part.labels) | (inside & (attacked != part.labels))).tolist()
    return broken


def _pair(case: Case, attack: str, usual: Side, ours: Side, limit: tuple[float, ...] = ()) -> Pair:
    wrong = 0
    with torch.no_grad():
        for part in case.parts:
            wrong += int((part.classifier(part.pixels).argmax(1) != part.labels).sum())
    ids = tuple(name for part in case.parts for name in part.ids)
    return Pair(
        backbone=case.backbone,
        device=torch.cuda.get_device_name(case.device)
        if case.device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads",
        data=tuple(part.data for part in case.parts),
        eps=case.eps,
        attack=attack,
        trained=case.trained,
        clean=1 - wrong / len(ids),
        ids=ids,
        usual=usual,
        ours=ours,
        limit=limit,
    )


def _clock(device: torch.device) -> float:
    """Seconds on a GPU; on the CPU those that this process was given, which other processes do not lengthen."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
