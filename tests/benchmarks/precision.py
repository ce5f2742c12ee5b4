"""How many verdicts an attack in bf16 changes: the same samples, noise and steps, in fp32 and in bf16.

In bf16 only the attack's passes are short; the clean prediction and the verdict are those of the float32 model, and a
sample that the short model calls broken and the full one does not is attacked again in float32. PGD is a search:
another rounding is another path, so samples may be broken in either precision alone.
"""

from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import Tensor

from apd_bench.attacks.parse import parse_attack
from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.load import load_backbone
from apd_bench.core.specs import ThreatModel, format_eps
from apd_bench.evaluation.cell import evaluate_samples
from tests.benchmarks.models import SETS, VIT_B32, made_up, zero_shot
from tests.benchmarks.table import Row, in_turn

BUDGETS = {"tiny-clean": 2 / 255, "tiny-robust": 4 / 255}  # where about half of the accuracy is lost


def rows(quick: bool, device: str) -> Iterator[Row]:
    """Gradients, then PGD and CW on 100 samples of three sets with both embedded models; 10 and one model if quick."""
    for name, batch in (("tiny-clean", 4),) if quick else (("tiny-clean", 4), (VIT_B32, 1), (VIT_B32, 16)):
        yield cast_row(load_backbone(name, device), batch, repeats=5)
    for name in list(BUDGETS)[: 1 if quick else 2]:
        backbone = load_backbone(name, device)
        for data in SETS:
            full, test = zero_shot(backbone, data, 10 if quick else 100)
            threat = ThreatModel(eps=BUDGETS[name])
            for text in ("pgd", "cw"):
                fp32, bf16 = (
                    evaluate_samples(model, test, parse_attack(text), threat, batch_size=100, device=backbone.device)
                    for model in (full, full.in_precision("bf16"))
                )
                yield precision_row(f"{text} in bf16 on {name}, {data}, {format_eps(threat.eps)}", fp32, bf16)


def cast_row(backbone: Backbone, batch: int, *, repeats: int) -> Row:
    """A gradient in bf16: usually autocast casts the frozen weights in every pass, ours have been cast once."""
    samples = made_up(backbone, batch)
    model, device = samples.classifier.in_precision("bf16"), str(backbone.device)

    def gradient() -> Tensor:
        x = samples.pixels.clone().requires_grad_()
        return torch.autograd.grad(model(x).logsumexp(1).sum(), x)[0]

    def usual() -> Tensor:
        with patch.object(backbone, "_tower", lambda: backbone._image):
            return gradient()

    same = torch.equal(usual(), gradient())
    seconds = in_turn({"usual": usual, "ours": gradient}, repeats, device)
    what = f"gradient in bf16 on {backbone.spec.name}, batch {batch}"
    return Row(part="precision", what=what, **seconds, facts={"same bits": "yes" if same else "no"})


def precision_row(what, fp32, bf16) -> Row:
    """Two results of evaluation as a row; the usual side is fp32."""
    one, two = fp32.outcomes.broken, bf16.outcomes.broken
    robust = [100 * (1 - side.mean()) for side in (one, two)]
    facts = {
        "robust accuracy, %": f"{robust[0]:.1f} / {robust[1]:.1f}",
        "verdicts changed": int((one != two).sum()),
        "broken in one alone": f"{int((one & ~two).sum())} / {int((two & ~one).sum())}",
        "attacked again in fp32": int(bf16.effective.get("attacked_again", 0)),
    }
    usual, ours = ((float(side.timing["attack_seconds"]),) for side in (fp32, bf16))
    what = f"{what}, {len(one)} images"
    return Row(part="precision", what=what, usual=usual, ours=ours, unit="s wall", facts=facts)
