"""What an audit says of synthetic outcomes, and which published numbers it may stand beside."""

from dataclasses import replace

import pytest
from synthetic import cell, dataset, method, outcomes, record, tables_of

from apd_bench.attacks.parse import parse_attack
from apd_bench.core.specs import BackboneSpec
from apd_bench.leaderboard.published import claims, protocols, select
from apd_bench.leaderboard.review import AuditResult, results
from apd_bench.leaderboard.statistics import Estimate, wilson
from apd_bench.training.importers import FORMATS

B32 = BackboneSpec(name="ViT-B-32-quickgelu/openai", architecture="a", weights="w", activation="quick_gelu")
CLEAN, PAPER, SOUND = [1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]


def measured(knowledge="white_box", **changes):
    """The table of an imported checkpoint on caltech101 under PGD-100 and a sound attack."""
    spec = {
        "method_spec": method("imported-coop@1", trains=False), "backbone": B32, "eps": 1 / 255,
        "data": dataset("caltech101", group="benchmark"), **changes,
    }  # fmt: skip
    pairs = (("pgd.literature", PAPER), ("worst.fast", SOUND))
    cells = [(replace(cell(**spec), attack=parse_attack(name)), hits) for name, hits in pairs]
    cells = [(replace(one, threat=replace(one.threat, knowledge=knowledge)), hits) for one, hits in cells]
    return tables_of([(record(one), outcomes(CLEAN, hits)) for one, hits in cells])[0]


def test_the_gap_counts_samples_that_the_paper_calls_robust_and_another_attack_breaks():
    (result,) = results([measured()], "pgd.literature")
    assert (result.clean.value, result.protocol.value, result.worst.value) == (0.8, 0.6, 0.4)
    assert result.gap == wilson(1, 5) and result.fallen == ("s00001",)
    assert result.sentence("PGD").endswith(": 20.0 (3.6–62.4) points less.")
    none = AuditResult("Linf 1/255", "", *[Estimate(0.5, None, None, 9)] * 3, wilson(0, 9))
    assert none.sentence("PGD").endswith("no sample of 9 falls to another attack (95 %: at most 29.9 points).")


def test_every_format_has_a_protocol_whose_published_methods_are_known():
    assert {*protocols()["formats"]} == {*FORMATS, "prompts"}
    assert all(paper["source"] for paper in protocols()["formats"].values())


def test_claims_are_the_numbers_that_were_tested_alike():
    table = measured()
    pairs = claims(table, table.rows[0], ["AdvTP"])
    wanted = select(source="fap", method="AdvTP", dataset="caltech101", stat="mean")
    assert sorted(pair.published.value for pair in pairs) == sorted(item.value for item in wanted)
    assert {pair.column for pair in pairs} == {"clean", "pgd.literature"}
    assert {pair.measured.value for pair in pairs} == {0.8, 0.6}


@pytest.mark.parametrize("changes", [
    {"eps": 2 / 255}, {"backbone": BackboneSpec(name="tiny-clean", architecture="a", weights="w", activation="gelu")},
    {"data": dataset("food")}, {"knowledge": "hand_prompt"},
])  # fmt: skip
def test_no_number_stands_beside_another_protocol(changes):
    table = measured(**changes)
    left = {pair.column for pair in claims(table, table.rows[0], ["AdvTP"])}
    assert left == ({"clean"} if "eps" in changes else set())


def test_a_part_of_the_images_is_said_to_be_one():
    table = measured(limit=5)
    assert all("at most 5 test images" in pair.deviation for pair in claims(table, table.rows[0], ["AdvTP"]))
