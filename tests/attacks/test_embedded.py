"""The attacks on the embedded CLIP: no diagnostic fires, and AutoAttack's stored verdicts are reached."""

from pathlib import Path

import pytest

from apd_bench.attacks.meter import Meter
from apd_bench.attacks.parse import parse_attack
from apd_bench.backbones.load import load_backbone
from apd_bench.core.specs import ThreatModel
from apd_bench.evaluation.cell import evaluate_samples
from apd_bench.evaluation.diagnostics import gradient_gain
from apd_bench.records.checks import suspect
from apd_bench.records.store import Store
from tests.benchmarks.models import SETS, embedded_samples, zero_shot
from tests.benchmarks.suites import against_records

RESULTS = Path(__file__).parents[2] / "results" / "suites"


@pytest.fixture(scope="module")
def part():
    return zero_shot(load_backbone("tiny-clean", "cpu"), "vehicles", 12)


@pytest.mark.parametrize("attack", ["pgd", "cw", "worst.fast"])
def test_the_plain_model_is_above_suspicion(attack, part):
    result = evaluate_samples(*part, parse_attack(attack), ThreatModel(eps=2 / 255))
    assert result.suspect == ()
    assert 0 < result.robust_accuracy < result.clean_accuracy


@pytest.mark.parametrize("name", ["tiny-clean", "tiny-robust"])
def test_a_gradient_step_gains_what_it_promises(name):
    for part in embedded_samples(load_backbone(name, "cpu"), SETS, 8):
        right = part.classifier(part.pixels).argmax(1) == part.labels
        x, y, ids = (
            part.pixels[right],
            part.labels[right],
            [i for i, is_right in zip(part.ids, right, strict=True) if is_right],
        )
        for threat in (*(ThreatModel(eps=eps / 255) for eps in (1, 6, 64)), ThreatModel(eps=1.0, norm="L2")):
            facts = gradient_gain(Meter(part.classifier), x, y, threat, ids, seed=0)
            assert suspect(facts) == () and facts["broken_promise"] < 0.3


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the committed records are not part of a source archive")
def test_the_suites_reach_the_stored_verdicts_of_autoattack_for_a_fraction_of_its_passes():
    def keep(record):
        cell = record.cell
        board = cell.threat.eps == 3 / 255 and cell.fit.backbone.name == "tiny-clean"
        return board and cell.fit.method.name == "zero_shot" and cell.dataset.name in ("animals", "food")

    rows = against_records(Store(RESULTS), ["worst", "worst.fast"], keep=keep)
    assert {suite for _, _, suite in rows} == {"worst", "worst.fast"}
    for row in rows.values():
        assert row.n >= 40 and 0 < row.library_standing < row.n / 2
        assert row.missed <= 1 and abs(row.standing - row.library_standing) <= 1
        assert row.forwards * 5 < row.library_forwards and row.backwards * 4 < row.library_backwards
