"""Checks that tell a robust model from one that hides its gradients (Carlini et al., 2019; AutoAttack's flags).

Each check measures one number and compares it with a limit that has a reason; the reasons of the checks that fire are
the `suspect` list of a record. The probes look at a few correctly classified samples of the cell, so that they cost
little beside any real attack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apd_bench.attacks import run
from apd_bench.attacks.inputs import in_unit_interval
from apd_bench.attacks.losses import ce, stable_ce
from apd_bench.attacks.meter import Meter
from apd_bench.core.specs import ThreatModel

PROBES = 32  # samples that the probes look at
_FEW = 2  # one sample more or less is chance


@dataclass(frozen=True)
class Check:
    """A diagnostic: it fires when its value is above `limit`; `reason` is what the reader of a table is told."""

    limit: float
    reason: str


# AutoAttack's flags (flags_doc of fra31/auto-attack) give 1e-4 for repeated predictions and 0.2 points for Square.
# The margins are where float32 cross-entropy loses the true class (17) and its whole gradient (88 to 104). Up to a
# margin of 7 the signs of its gradient are exact; at 15, 7 % of them are wrong, at 30, 20 % (measured on a tiny CLIP).
CHECKS: dict[str, Check] = {
    "repeat_difference": Check(1e-4, "randomised: repeated predictions differ, use autoattack.rand"),
    "zero_gradients": Check(0.01, "flat loss: gradients are exactly zero"),
    "bad_gradients": Check(0.0, "broken gradients: NaN or infinite values"),
    "saturated": Check(0.1, "saturated logits: margins above 88, where cross-entropy has no gradient"),
    "saturated_loss": Check(0.1, "the attack's cross-entropy saturates: margins above 17"),
    "plain_loss_gap": Check(0.1, "the attack's cross-entropy misleads: its gradient has other signs than the exact"),
    "huge_eps_robust": Check(0.1, "masked gradients: survives a budget at which every image can become grey"),
    "fgsm_above_noise": Check(0.05, "masked gradients: noise breaks more than a gradient step"),
    "attack_above_fgsm": Check(0.05, "weak attack: a single step breaks more"),
    "late_gain": Check(0.1, "unfinished attack: its loss still rises in the last steps"),
    "black_box_gain": Check(0.002, "masked gradients: Square breaks what the gradient attacks could not"),
    "unit_interval": Check(0.0, "all outputs lie in [0,1]: a sigmoid or softmax hides gradients, return its logits"),
    "flips": Check(0.01, "unstable verdicts: a second prediction denies the attack's claim"),
}
SATURATION, EXHAUSTION = 17.0, 88.0
_MANY_STEPS = 10


def probe(
    meter: Meter, pixels: Tensor, labels: Tensor, threat: ThreatModel, ids: Sequence[str], *, seed: int
) -> tuple[dict[str, float], Tensor]:
    """Facts about correctly classified samples [P], and which of them a gradient step within the budget broke [P]."""
    with torch.no_grad():
        first, second = meter.predict(pixels), meter.predict(pixels)
    scale = torch.linalg.vector_norm(first, dim=1, keepdim=True).clamp_min(1e-12)
    before = meter.bad_gradients
    _, _, g_stable = meter.gradient(pixels, lambda z: stable_ce(z, labels))
    _, _, g_plain = meter.gradient(pixels, lambda z: ce(z, labels))
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
        "repeat_difference": float(((first - second) / scale).abs().max()),
        "zero_gradients": _share(dead),
        "plain_ce_zero_gradients": _share(dead_plain),
        "plain_ce_agreement": float(agree),
        "bad_gradients": bad / (2 * len(pixels)),
        "noise_robust": 1 - _share(by_noise),
        "fgsm_robust": 1 - _share(by_step),
        "huge_eps_robust": 1 - _share(by_grey),
        "unit_interval": float(in_unit_interval(first)),
        "fgsm_above_noise": _excess(by_noise, by_step),
    }
    return facts, by_step


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


def suspect(facts: Mapping[str, object]) -> list[str]:
    """The reasons of the checks that fire, in the order of CHECKS."""
    return [
        check.reason
        for name, check in CHECKS.items()
        if isinstance(value := facts.get(name), (int, float)) and value > check.limit
    ]


def _dead(g: Tensor) -> Tensor:
    return g.flatten(1).abs().amax(1) == 0


def _share(mask: Tensor) -> float:
    return float(mask.float().mean()) if len(mask) else 0.0


def _excess(more: Tensor, less: Tensor) -> float:
    """By which share of the samples `more` holds more than `less`; 0 where that is a single sample."""
    count = int(more.sum()) - int(less.sum())
    return count / len(more) if count >= _FEW else 0.0
