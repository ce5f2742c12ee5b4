"""What every attack hands back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class AttackResult:
    """Adversarial pixels, which samples broke, and what it cost.

    `adversarials` [B, 3, H, W] float32: the point that broke the sample, else the strongest point seen; a sample that
    is misclassified without any change comes back unchanged. `broken` [B] bool is the attack's own claim, which the
    audit checks. `forwards` and `backwards` count passes of single images. `columns` holds facts per sample [B] (such
    as which member of a suite broke it), `diagnostics` facts per batch, `effective` what was run where it differs from
    what was asked.
    """

    adversarials: Tensor
    broken: Tensor
    forwards: int
    backwards: int
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    effective: Mapping[str, Any] = field(default_factory=dict)
