"""Checks that tell a robust model from one that hides its gradients (Carlini et al., 2019; AutoAttack's flags).

Each check compares one number of the diagnostics with a limit that has a reason; the reasons of the checks that fire
are the `suspect` marks of a record.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A diagnostic: it fires when its value is above `limit`; `reason` is what the reader of a table is told."""

    limit: float
    reason: str


# AutoAttack's flags (flags_doc of fra31/auto-attack) give 1e-4 for repeated predictions and 0.2 points for Square.
# The margins are where float32 cross-entropy loses the true class (17) and its whole gradient (88 to 104). Up to a
# margin of 7 the signs of its gradient are exact; at 15, 7 % of them are wrong, at 30, 20 % (measured on a tiny CLIP).
# A gradient step gains at least 0.79 of its promise and always more than random steps on both embedded CLIPs (zero-shot
# all sets, committed prompts of APD and AdvTP), Linf 1/255 to 128/255 and L2 0.25 to 20. Behind planted decoys it
# gains at most 0.16 of it, or random steps gain as much for a fifth of the samples. No trained CLIP of full size was at
# hand; with random weights ViT-B/32 and RN50 keep 0.97.
# On the committed board of defences the gain of transfer is 0.33 to 1 for the anti-adversary on tiny-clean, 0 to 0.38
# on tiny-robust, and 0 for all others but one cell of noise (0.25). The gap to unrolled gradients is 0 for TPT, R-TPT
# and TAPT, 1 for CLIPure.
CHECKS: dict[str, Check] = {
    "repeat_difference": Check(1e-4, "randomised: repeated predictions differ, use autoattack.rand"),
    "zero_gradients": Check(0.01, "flat loss: gradients are exactly zero"),
    "bad_gradients": Check(0.0, "broken gradients: NaN or infinite values"),
    "saturated": Check(0.1, "saturated logits: margins above 88, where cross-entropy has no gradient"),
    "saturated_loss": Check(0.1, "the attack's cross-entropy saturates: margins above 17"),
    "plain_loss_gap": Check(0.1, "the attack's cross-entropy misleads: its gradient has other signs than the exact"),
    "huge_eps_robust": Check(0.1, "masked gradients: survives a budget at which every image can become grey"),
    "fgsm_above_noise": Check(0.05, "masked gradients: noise breaks more than a gradient step"),
    "broken_promise": Check(0.75, "masked gradients: a step gains less than a quarter of what it promises"),
    "random_above_step": Check(0.1, "masked gradients: a random step gains as much as one along the gradient"),
    "attack_above_fgsm": Check(0.05, "weak attack: a single step breaks more"),
    "late_gain": Check(0.1, "unfinished attack: its loss still rises in the last steps"),
    "black_box_gain": Check(0.002, "masked gradients: Square breaks what the gradient attacks could not"),
    "transfer_gain": Check(
        0.25, "masked gradients: what breaks the undefended model, an attack through the defence misses"
    ),
    "unrolled_gap": Check(0.5, "masked gradients: those that the defence gives are not those of its adaptation"),
    "unit_interval": Check(0.0, "all outputs lie in [0,1]: a sigmoid or softmax hides gradients, return its logits"),
    "not_run": Check(0, "unchecked: a check for masked gradients failed, see the diagnostics"),
    "flips": Check(0.01, "unstable verdicts: a second prediction denies the attack's claim"),
}


def suspect(facts: Mapping[str, object]) -> tuple[str, ...]:
    """The reasons of the checks that fire, in the order of CHECKS; of a list, its length counts."""
    values = {name: len(value) if isinstance(value, list) else value for name, value in facts.items()}
    return tuple(
        check.reason
        for name, check in CHECKS.items()
        if isinstance(value := values.get(name), (int, float)) and value > check.limit
    )
