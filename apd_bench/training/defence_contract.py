"""Contract checks of a test-time defence, in seconds, on a toy model: what each must hold, a plug-in too."""

from collections.abc import Callable

import torch
from torch import Tensor

from apd_bench.backbones.adapter import Backbone
from apd_bench.core.errors import UserError
from apd_bench.core.specs import DefenceSpec
from apd_bench.defences.base import Defence
from apd_bench.defences.catalog import DefenceEntry
from apd_bench.defences.parse import make_defence
from apd_bench.prompts.classifier import Classifier
from apd_bench.prompts.visual import VisualLearner
from apd_bench.training.contract import CheckResult, result_of
from apd_bench.training.prompt_states import zero_shot
from apd_bench.training.toy import toy_backbone, toy_dataset

_SAME = 1e-3  # of the largest logit: what batch sizes change by rounding, and sign steps by that


def check_defence(entry: DefenceEntry, *, backbone: Backbone | None = None) -> list[CheckResult]:
    """The results of all checks on a defence of the zero-shot model; none stops at the first that fails."""
    data = toy_dataset()
    try:
        backbone = backbone or toy_backbone()
        model = zero_shot(backbone, data.classes, data.template)
        if "visual_tokens" in entry.needs:
            learner = VisualLearner(backbone, data.classes, data.template, {}, torch.Generator().manual_seed(0))
            model = Classifier.from_learner(backbone, learner)
        spec = DefenceSpec(name=entry.name, version=entry.version, code=entry.code)
        train = data.train or data.test
        defence = make_defence(spec, model, lambda made: made.learn([train.pixels()]))
        x = data.test.pixels(range(4))
    except UserError as error:
        return [CheckResult("it can be built", False, str(error))]
    return [result_of(name, check, defence, x, entry) for name, check in _CHECKS.items()]


def _predict(defence: Defence, x: Tensor, draw: int = 1) -> Tensor:
    with torch.no_grad():
        z: Tensor = defence(x, ("check", draw))
    return z


def _logits(defence: Defence, x: Tensor, entry: DefenceEntry) -> str:
    z = _predict(defence, x)
    good = z.ndim == 2 and len(z) == len(x) and bool(z.isfinite().all())
    return "" if good else f"It gives {[*z.shape]} for {len(x)} images, or numbers that are not finite."


def _alone(defence: Defence, x: Tensor, entry: DefenceEntry) -> str:
    together = _predict(defence, x)
    apart = torch.cat([_predict(defence, image) for image in torch.split(x, 1)])
    far = float((together - apart).abs().max() / together.abs().max().clamp_min(1e-12))
    return "" if far <= _SAME else f"Logits differ by {far:.2g} of the largest when an image is alone in its batch."


def _draws(defence: Defence, x: Tensor, entry: DefenceEntry) -> str:
    first = _predict(defence, x)
    if not torch.equal(first, _predict(defence, x)):
        return "The same images and the same draw give other logits: its randomness has to come from `noise` alone."
    differs = any(not torch.equal(first, _predict(defence, x, draw)) for draw in range(2, 6))
    return "" if differs == defence.draws else f"draws is {defence.draws}, but other draws say the opposite."


def _cost(defence: Defence, x: Tensor, entry: DefenceEntry) -> str:
    before = (defence.forwards, defence.backwards)
    _predict(defence, x)
    taken = tuple(
        (now - then) / len(x) for now, then in zip((defence.forwards, defence.backwards), before, strict=True)
    )
    said = entry.passes(defence.options)
    return "" if taken == said else f"A prediction takes {taken} image passes (forwards, backwards), cost says {said}."


def _gradient(defence: Defence, x: Tensor, entry: DefenceEntry) -> str:
    for way in defence.gradients:
        defence.unrolled = way == "unrolled"
        at = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(defence(at, ("check", 1)).amax(1).sum(), at)
        defence.unrolled = False
        if not bool(g.isfinite().all()):
            return f"The {way} gradient is not finite."
    return ""


def _hinge(defence: Defence, x: Tensor, entry: DefenceEntry) -> str:
    if not defence.gate:
        return ""
    h = defence.hinge(x.clone().requires_grad_(), ("check", 1))
    good = h.shape == (len(x),) and bool((h >= 0).all()) and h.requires_grad
    return "" if good else "hinge has to give [B] numbers of at least 0, differentiable in the pixels."


_CHECKS: dict[str, Callable[[Defence, Tensor, DefenceEntry], str]] = {
    "its logits are finite, a row an image": _logits,
    "an image is predicted alone as in a batch": _alone,
    "a draw decides everything": _draws,
    "a prediction costs what it says": _cost,
    "its gradients are finite": _gradient,
    "its gate has a hinge": _hinge,
}
