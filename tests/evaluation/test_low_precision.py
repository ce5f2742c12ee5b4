"""An attack in bf16: the verdicts are those of the full model, and what it denies is attacked again in full."""

import pytest
import torch

from apd_bench.attacks.meter import Meter
from apd_bench.attacks.parse import parse_attack
from apd_bench.attacks.search import AttackResult
from apd_bench.core.specs import ThreatModel
from apd_bench.evaluation.cell import evaluate_samples
from apd_bench.evaluation.low_precision import confirmed
from apd_bench.prompts.classifier import Classifier
from apd_bench.training.prompt_states import zero_shot
from apd_bench.training.toy import toy_backbone, toy_dataset


def test_denied_samples_are_attacked_again_and_nobody_else():
    meter = Meter(lambda x: torch.stack([x.flatten(1).sum(1), torch.ones(len(x))], dim=1))
    y = torch.zeros(4, dtype=torch.int64)
    points = torch.tensor([2.0, 0.5, 3.0, 0.2])[:, None, None, None]  # the model denies samples 0 and 2
    claimed = torch.tensor([True, True, True, False])
    result = AttackResult(points, claimed, 10, 20, {"zero_gradients": 1}, {"margin": torch.zeros(4)})
    seen = []

    def again(rows):
        seen.extend(rows.tolist())
        return AttackResult(
            torch.tensor([0.1, 4.0])[:, None, None, None], torch.tensor([True, False]), 3, 4,
            {"zero_gradients": 2}, {"margin": torch.ones(2)},
        )  # fmt: skip

    merged = confirmed(meter, result, y, again)
    assert seen == [0, 2]
    assert merged.broken.tolist() == [True, True, False, True]  # sample 3 is broken for the full model
    assert merged.adversarials.flatten().tolist() == pytest.approx([0.1, 0.5, 4.0, 0.2])
    assert merged.columns["margin"].tolist() == [1, 0, 1, 0]
    assert (merged.forwards, merged.backwards, merged.diagnostics["zero_gradients"]) == (13, 24, 3)
    assert merged.effective["attacked_again"] == 2
    assert result.broken is claimed


def test_a_cell_in_bf16_is_judged_in_float32():
    backbone, data = toy_backbone(), toy_dataset(10)
    full = zero_shot(backbone, data.classes, data.template)
    test = data.test
    with torch.no_grad():
        clean = full(test.pixels(range(len(test)))).argmax(1)
    test = type(test)(test.name, test.ids, clean, test.store, test.rows)
    short = zero_shot(backbone, data.classes, data.template, precision="bf16")
    results = {
        name: evaluate_samples(model, test, parse_attack("pgd(steps=10)"), ThreatModel(eps=4 / 255))
        for name, model in (("fp32", full), ("bf16", short))
    }
    half, whole = results["bf16"].outcomes, results["fp32"].outcomes
    assert half.clean_prediction.tolist() == clean.tolist()
    assert (half.extra["clean_margin"] == whole.extra["clean_margin"]).all()
    assert ((half.extra["margin"] > 0) == half.broken).all()
    assert 0 < whole.broken.sum() < len(whole)
    assert abs(int(half.broken.sum()) - int(whole.broken.sum())) <= 2
    assert (half.extra["margin"] != whole.extra["margin"]).any()  # the attack itself was another one


def test_a_twin_shares_the_weights_and_a_second_attack_the_clean_passes():
    backbone = toy_backbone()
    short = Classifier(backbone, torch.eye(4, backbone.shapes.embed_dim), precision="bf16")
    full = short.in_precision("fp32")
    assert (short.precision, full.precision) == ("bf16", "fp32")
    assert full.weight is short.weight
    assert full.in_precision("fp32") is full
    backbone, data = toy_backbone(), toy_dataset(3)
    classifier = zero_shot(backbone, data.classes, data.template)
    attacks = [parse_attack(text) for text in ("fgsm", "noise", "fgsm")]
    results = [evaluate_samples(classifier, data.test, attack, ThreatModel(eps=0.01)) for attack in attacks]
    assert [result.timing["clean_forwards"] for result in results] == [12, 0, 0]
    assert results[0].outcomes.to_bytes() == results[2].outcomes.to_bytes()
