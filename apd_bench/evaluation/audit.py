"""What the benchmark believes of an attack: only what it measures itself, outside of the attack.

Whatever comes back, from our own code or a library's, is clamped, re-projected and classified again without a graph;
the verdict is taken from that prediction. A budget exceeded by more than 1e-6, or a verdict that the second prediction
contradicts by more than rounding, is an error and not a number.
"""

from dataclasses import dataclass

from torch import Tensor

from apd_bench.attacks.losses import margin
from apd_bench.attacks.meter import Meter
from apd_bench.attacks.projections import Region, distance
from apd_bench.attacks.search import AttackResult
from apd_bench.core.specs import ThreatModel

BUDGET_TOLERANCE = 1e-6
FLIP_TOLERANCE = 1e-3  # of the largest logit: ten times what batch size and kernels change


class AuditError(RuntimeError):
    """An attack broke its budget or claimed what a second prediction denies: a defect, never a result."""


@dataclass(frozen=True)
class Audit:
    """The facts of one batch [B]: audited pixels, predictions, margins, the norm of each change, who is broken.

    `norm` is measured in the threat's norm before the re-projection, `flips` are the claims of the attack that the
    second prediction denies, `doubt` is the largest relative margin of such a flip.
    """

    pixels: Tensor
    prediction: Tensor
    margin: Tensor
    norm: Tensor
    broken: Tensor
    flips: int
    doubt: float


def audit(
    meter: Meter,
    result: AttackResult,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    kind: str = "ball",
    claims: bool = True,
) -> Audit:
    """The audited outcome of `result` on the correctly classified `pixels` [B, 3, H, W].

    Attacks of kind "distance" may leave the ball: their points are not projected, and a sample is broken when its
    point is misclassified and lies within the ball. `claims` False: the attack saw another model, so its own verdicts
    are not compared. Raises AuditError when a ball attack exceeds its budget.
    """
    x = result.adversarials.detach().to(pixels)
    if x.shape != pixels.shape:
        raise AuditError(f"The attack returned the shape {list(x.shape)} for images of {list(pixels.shape)}.")
    if not bool(x.isfinite().all()):
        raise AuditError("The attack returned pixels that are not finite.")
    norm = distance(x, pixels, threat.norm)
    low, high = (float(value) for value in x.aminmax()) if x.numel() else (0.0, 1.0)
    inside = norm <= threat.eps + BUDGET_TOLERANCE
    if low < -BUDGET_TOLERANCE or high > 1 + BUDGET_TOLERANCE:
        raise AuditError(f"The attack left the pixel range: {low:.8f} to {high:.8f}.")
    if kind == "ball" and not bool(inside.all()):
        excess = float(norm.max()) - threat.eps
        raise AuditError(f"The attack exceeded its budget of {threat.eps:.6g} ({threat.norm}) by {excess:.3g}.")
    x = Region.around(pixels, threat).project(x) if kind == "ball" else x.clamp(0, 1)
    z = meter.predict(x) if len(x) else x.new_zeros(0, 2)
    if not bool(z.isfinite().all()):
        raise AuditError("The model returns NaN or infinite logits for adversarial images.")
    m = margin(z, labels)
    wrong = z.argmax(1) != labels
    flipped = (wrong != result.broken) & claims
    scale = z.abs().amax(1).clamp_min(1e-12) if len(z) else m
    return Audit(
        pixels=x,
        prediction=z.argmax(1),
        margin=m,
        norm=norm,
        broken=wrong & inside,
        flips=int(flipped.sum()),
        doubt=float((m.abs() / scale)[flipped].max()) if bool(flipped.any()) else 0.0,
    )
