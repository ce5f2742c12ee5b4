"""The numbers of `checks.CHECKS`, measured: they tell a robust model from one that hides its gradients.

The probes look at a few correctly classified samples of the cell, so that they cost little beside any real attack.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from apd_bench.attacks import run
from apd_bench.attacks.inputs import in_unit_interval
from apd_bench.attacks.losses import ce, stable_ce
from apd_bench.attacks.meter import Meter
from apd_bench.attacks.projections import Region
from apd_bench.core.specs import ThreatModel

PROBES = 32  # samples that the probes look at
_FEW = 2  # one sample more or less is chance
_STEP = 1 / 255  # above it even an honest loss is not straight; in L2 the step that moves pixels by as much
_RANDOM_STEPS = 3
SATURATION, EXHAUSTION = 17.0, 88.0
_MANY_STEPS = 10


def probe(
    meter: Meter, pixels: Tensor, labels: Tensor, threat: ThreatModel, ids: Sequence[str], *, seed: int
) -> tuple[dict[str, float], Tensor]:
    """Facts about correctly classified samples [P], and which of them a gradient step within the budget broke [P]."""
    with torch.no_grad():
        first, second = meter.predict(pixels), meter.predict(pixels)
    before = meter.bad_gradients
    _, _, g_stable = meter.gradient(pixels, stable_ce, labels)
    _, _, g_plain = meter.gradient(pixels, ce, labels)
    bad = meter.bad_gradients - before
    dead, dead_plain = _dead(g_stable), _dead(g_plain)
    grey = ThreatModel(eps=0.5 if threat.norm == "Linf" else 0.5 * pixels[0].numel() ** 0.5, norm=threat.norm)
    by_noise, by_step, by_grey = (
        run(attack, meter, pixels, labels, within, ids, seed).broken
        for attack, within in (("noise", threat), ("fgsm", threat), ("pgd(steps=10, schedule='constant')", grey))
    )
    agree = (g_stable.sign() == g_plain.sign()).float().mean()
    facts = {
        "probes": float(len(pixels)),
        "repeat_difference": repeat_difference(first, second),
        "zero_gradients": _share(dead),
        "plain_ce_zero_gradients": _share(dead_plain),
        "plain_ce_agreement": float(agree),
        "bad_gradients": bad / (2 * len(pixels)),
        "noise_robust": 1 - _share(by_noise),
        "fgsm_robust": 1 - _share(by_step),
        "huge_eps_robust": 1 - _share(by_grey),
        "unit_interval": float(in_unit_interval(first)),
        "fgsm_above_noise": _excess(by_noise, by_step),
        **gradient_gain(meter, pixels, labels, threat, ids, seed=seed),
    }
    return facts, by_step


def gradient_gain(
    meter: Meter, pixels: Tensor, labels: Tensor, threat: ThreatModel, ids: Sequence[str], *, seed: int
) -> dict[str, float]:
    """Whether the loss rises where its gradient points, on samples [P]: 5 forward passes and 1 backward for each.

    From a random point of the ball, as attacks start, one step as long as the first of PGD (eps / 4, at most 1/255).
    `broken_promise` is the median share missing of the first-order gain g · (x' - x); `random_above_step` the share of
    samples of which one of three random steps gains as much. A component of high frequency and small amplitude rules
    the gradient and hardly moves the loss: the promise is not kept. A wrong backward pass is no better than chance.
    """
    region = Region.around(pixels, threat)
    length = min(threat.eps / 4, _STEP * (1 if threat.norm == "Linf" else pixels[0].numel() ** 0.5))
    x = region.random(ids, seed, "gain", 0)
    _, before, g = meter.gradient(x, stable_ce, labels)

    def gain(to: Tensor) -> Tensor:
        return stable_ce(meter.predict(to), labels) - before

    along = region.step(x, g, length)
    chance = torch.stack(
        [gain(region.step(x, region.random(ids, seed, "gain", k + 1) - pixels, length)) for k in range(_RANDOM_STEPS)]
    )
    promised = (g * (along - x)).flatten(1).sum(1).clamp_min(1e-12)
    gained = gain(along)
    return {
        "broken_promise": float((1 - gained / promised).median()),
        "random_above_step": _excess(gained <= chance.amax(0), torch.zeros_like(labels)),
    }


def repeat_difference(first: Tensor, second: Tensor) -> float:
    """The largest difference of two predictions [B, K] of the same images, in norms of their logits."""
    scale = torch.linalg.vector_norm(first, dim=1, keepdim=True).clamp_min(1e-12)
    return float(((first - second) / scale).abs().max())


def margins(clean_margin: Tensor, *, plain_loss: bool) -> dict[str, float]:
    """The distribution of the margins z_y - max_{j != y} z_j [C] of correctly classified samples."""
    if not len(clean_margin):
        return {}
    facts = {
        "margin_median": float(clean_margin.median()),
        "margin_above_17": _share(clean_margin > SATURATION),
        "saturated": _share(clean_margin > EXHAUSTION),
    }
    if plain_loss:
        facts["saturated_loss"] = facts["margin_above_17"]
    return facts


def late_gain(clean: Tensor, late: Tensor, end: Tensor, steps: int) -> dict[str, float]:
    """Which share of the margin's whole rise the last tenth of the steps made, as the median over survivors [S].

    All three are margins max_{j != y} z_j - z_y: of the image, of the best point after 90 % of the steps, of the best
    point. An attack that has converged gives nearly 0; one that rises steadily to the end gives 0.1 or more.
    """
    if steps < _MANY_STEPS or len(clean) <= _FEW:
        return {}
    return {"late_gain": float(((end - late) / (end - clean).clamp_min(1e-12)).median())}


def against_fgsm(by_attack: Tensor, by_step: Tensor) -> dict[str, float]:
    """How many more probes [P] one gradient step broke than the attack, as a share."""
    return {"attack_above_fgsm": _excess(by_step, by_attack)} if len(by_attack) else {}


def black_box(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """The share of samples that Square broke after the gradient attacks of an AutoAttack had given up on them."""
    members = [name for name in columns if name.startswith("broken_")]
    if "broken_square" not in members or members.index("broken_square") == 0:
        return {}
    before = columns[members[members.index("broken_square") - 1]]
    return {"black_box_gain": _excess(columns["broken_square"], before)}


def _dead(g: Tensor) -> Tensor:
    return g.flatten(1).abs().amax(1) == 0


def _share(mask: Tensor) -> float:
    return float(mask.float().mean()) if len(mask) else 0.0


def _excess(more: Tensor, less: Tensor) -> float:
    """By which share of the samples `more` holds more than `less`; 0 where that is a single sample."""
    count = int(more.sum()) - int(less.sum())
    return count / len(more) if count >= _FEW else 0.0
