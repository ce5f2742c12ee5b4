"""Our attacks and the field's usual ones on the same weights, samples, noise range and budget, in one run.

Repeats are interleaved. Both sides are judged alike: a point outside the ball or the pixel range breaks nothing, and a
prediction without a graph decides. AutoAttack and the suites that stand against it run once; its cost is minutes.
*Nobody leaves*: broken samples stay, so that both sides make the same passes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apd_bench.attacks.losses import stable_ce
from apd_bench.attacks.pgd import lengths, projected_ascent
from apd_bench.attacks.search import attacking
from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.load import load_backbone
from apd_bench.core.specs import ThreatModel, format_eps
from apd_bench.evaluation.audit import BUDGET_TOLERANCE
from tests.benchmarks import usual
from tests.benchmarks.models import SETS, VIT_B16, VIT_B32, Samples, attack, embedded_samples, made_up
from tests.benchmarks.table import Row, clock, in_turn, peak

# The budgets at which about half of the zero-shot accuracy is lost, or most of it: where attacks can differ.
EMBEDDED = (("tiny-clean", 2 / 255), ("tiny-clean", 3 / 255), ("tiny-robust", 4 / 255))
RANDOM = ((VIT_B32, 4, 5), (VIT_B16, 2, 3))  # name, batch, steps
SUITES = ("worst", "worst.fast")
LOOPS = (("tiny-clean", 64, 10), ("tiny-robust", 64, 10), (VIT_B32, 64, 1), (VIT_B16, 16, 1))  # name, batch, steps
NOBODY_BREAKS = 1e-6  # a budget below the model's own rounding: all samples stand to the last step
Passes = tuple[Tensor, int, int]  # points, forward passes, backward passes
Attack = Callable[[Samples], Passes]


@dataclass(frozen=True)
class Side:
    """One attack on all samples: who is broken, image passes, seconds of every repeat, peaks in MiB above idle."""

    broken: list[bool]
    forwards: int
    backwards: int
    seconds: tuple[float, ...]
    memory: list[float]

    @property
    def robust(self) -> float:
        """The robust accuracy in percent."""
        return 100 * (1 - sum(self.broken) / len(self.broken))


def rows(quick: bool, device: str) -> Iterator[Row]:
    """The embedded models with PGD, CW and AutoAttack, then PGD on the shapes of two ViTs; one model if quick."""
    for name, eps in EMBEDDED[1:2] if quick else EMBEDDED:
        backbone = load_backbone(name, device)
        yield from pairs(name, list(embedded_samples(backbone, SETS, 5 if quick else 14)), eps)
    for name, batch, steps in () if quick else RANDOM:
        samples = made_up(load_backbone(name, device), batch, classes=100)
        yield from pairs(name, [samples], 4 / 255, steps=steps, trained=False)


def loops(quick: bool, device: str) -> Iterator[Row]:
    """How far the attack loop is from its limit: the same forward and backward passes with nothing in between."""
    for name, batch, steps in LOOPS[:1] if quick else LOOPS:
        yield loop_row(load_backbone(name, device), batch=batch, steps=steps, repeats=3 if quick else 9)


def loop_row(backbone: Backbone, *, batch: int, steps: int, repeats: int) -> Row:
    """The PGD loop with `batch` samples that all stand, and as many bare passes; each ends with a forward pass."""
    samples = made_up(backbone, batch)
    α = lengths(steps, NOBODY_BREAKS / 4, "cosine")
    with attacking(samples.classifier, samples.pixels, samples.labels, ThreatModel(eps=NOBODY_BREAKS),
                   samples.ids, 0) as search:  # fmt: skip
        rows = torch.arange(batch, device=backbone.device)
        sides = {
            "limit": lambda: usual.limit(samples.classifier, samples.pixels, steps=steps, forwards=1),
            "ours": lambda: projected_ascent(search, rows, search.region.x0[rows], search.objective(stable_ce), α),
        }
        seconds = in_turn(sides, repeats, str(backbone.device))
        broken = int(search.broken.sum())
    what = f"PGD loop on {backbone.spec.name}, batch {batch}, {steps} steps"
    facts = {"left the active set": broken, "passes per image": 2 * steps + 1}
    return Row(part="loop", what=what, **seconds, facts=facts)


def pairs(
    name: str,
    parts: Sequence[Samples],
    eps: float,
    *,
    steps: int = 20,
    repeats: int = 3,
    suites: Sequence[str] = SUITES,
    trained: bool = True,
) -> Iterator[Row]:
    """The rows of one model; of random weights (`trained` False) time is all that matters, and nobody ever leaves."""
    options = f"(steps={steps}, step=0.25, schedule='constant')"  # of eps: the step of APT's protocol
    usually = {"eps": eps, "steps": steps, "step": 0.25 * eps}

    ids = [name for part in parts for name in part.ids]

    def row(title: str, sides: Mapping[str, Side], theirs: str, ours: str, *, limit: bool = False) -> Row:
        both = (sides[theirs], sides[ours])

        def each(number: Callable[[Side], float], digits: int = 1) -> str:
            return " / ".join(f"{number(side):.{digits}f}" for side in both)

        facts = {"robust accuracy, %": each(lambda side: side.robust)} if trained else {}
        facts["forwards per image"] = each(lambda side: side.forwards / len(ids))
        facts["backwards per image"] = each(lambda side: side.backwards / len(ids))
        if both[0].memory and both[1].memory:
            facts["peak MiB"] = each(lambda side: max(side.memory), 0)
        return Row(
            part="attacks",
            what=f"{title} on {name}, {format_eps(eps)}, {len(ids)} images",
            usual=both[0].seconds,
            ours=both[1].seconds,
            limit=sides["limit"].seconds if limit else (),
            facts=facts,
            evidence={"ids": ids, "broken": {"usual": both[0].broken, "ours": both[1].broken}},
        )

    runs = {
        "limit": _counted(lambda model, x, y: usual.limit(model, x, steps=steps)),
        "usual": _counted(lambda model, x, y: usual.pgd(model, x, y, **usually)),
        "all stay": _own(f"pgd{options}", eps, persist=True),
    }
    sides = _measure(parts, eps, runs | ({"ours": _own(f"pgd{options}", eps)} if trained else {}), repeats)
    yield row(f"pgd-{steps}, nobody leaves", sides, "usual", "all stay", limit=True)
    if not trained:
        return
    yield row(f"pgd-{steps}", sides, "usual", "ours")
    runs = {"usual": _counted(lambda model, x, y: usual.cw(model, x, y, **usually)), "ours": _own(f"cw{options}", eps)}
    yield row(f"cw-{steps}", _measure(parts, eps, runs, repeats), "usual", "ours")
    if suites:
        library = _counted(lambda model, x, y: usual.autoattack(model, x, y, eps=eps, seed=0))
        sides = _measure(parts, eps, {"usual": library} | {text: _own(text, eps) for text in suites}, 1)
        for text in suites:
            yield row(f"{text} / AutoAttack", sides, "usual", text)


def _counted(attack: Callable[[usual.PassCounter, Tensor, Tensor], Tensor]) -> Attack:
    """A library's attack with its passes; it draws from the global generator, which is forked and seeded."""

    def run(part: Samples) -> Passes:
        model = usual.PassCounter(part.classifier).eval()
        with torch.random.fork_rng(devices=[part.pixels.device] if part.pixels.is_cuda else []):
            torch.manual_seed(0)
            points = attack(model, part.pixels, part.labels)
        return points, model.forwards, model.backwards

    return run


def _own(text: str, eps: float, *, persist: bool = False) -> Attack:
    def run(part: Samples) -> Passes:
        result = attack(text, part, ThreatModel(eps=eps), persist=persist)
        return result.adversarials, result.forwards, result.backwards

    return run


def _measure(parts: Sequence[Samples], eps: float, runs: Mapping[str, Attack], repeats: int) -> dict[str, Side]:
    """Every run on every part, the runs taking turns; with several repeats a first, untimed one warms up."""
    seconds: dict[str, tuple[float, ...]] = dict.fromkeys(runs, ())
    sides: dict[str, Side] = {}
    for repeat in range(repeats + (repeats > 1)):
        for name, run in runs.items():
            broken: list[bool] = []
            forwards, backwards, total, memory = 0, 0, 0.0, list[float]()
            for part in parts:
                device = str(part.pixels.device)
                with peak(device) as most:
                    began = clock(device)
                    points, ahead, back = run(part)
                    total += clock(device) - began
                broken += verdicts(part, points, eps)
                forwards, backwards, memory = forwards + ahead, backwards + back, memory + most
            if repeat or repeats == 1:
                seconds[name] += (total,)
            memory += sides[name].memory if name in sides else []
            sides[name] = Side(broken, forwards, backwards, seconds[name], memory)
    return sides


def verdicts(part: Samples, points: Tensor, eps: float) -> list[bool]:
    """Who is misclassified by a point of the ball; the prediction of the unchanged image counts too."""
    inside = (points - part.pixels).flatten(1).abs().amax(1) <= eps + BUDGET_TOLERANCE
    inside &= ((points >= -BUDGET_TOLERANCE) & (points <= 1 + BUDGET_TOLERANCE)).flatten(1).all(1)
    with torch.no_grad():
        clean, attacked = part.classifier(part.pixels).argmax(1), part.classifier(points).argmax(1)
    return ((clean != part.labels) | (inside & (attacked != part.labels))).tolist()
