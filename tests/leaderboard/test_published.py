"""Published numbers keep their source, and stand beside ours, also in an audit, only where the protocol is the same."""

from dataclasses import replace

import pytest
from synthetic import cell, dataset, method, outcomes, record, tables_of

from apd_bench.attacks.parse import parse_attack
from apd_bench.core.errors import UnknownName
from apd_bench.core.specs import BackboneSpec
from apd_bench.leaderboard import published
from apd_bench.leaderboard.published import claims, protocols, select
from apd_bench.leaderboard.review import AuditResult, results
from apd_bench.leaderboard.statistics import Estimate, wilson
from apd_bench.methods.recipes import suite_recipe
from apd_bench.suites import load_suite
from apd_bench.training.importers import FORMATS

CLIP = BackboneSpec(
    name="ViT-B-32-quickgelu/openai", architecture="ViT-B-32-quickgelu", weights="openai", activation="quickgelu"
)
FAP = method("fap")
PGD_100 = parse_attack("pgd.literature")


def table(recipe=FAP, attack=PGD_100, threat={}, **changes):  # noqa: B006
    """FAP as in Tables 14 and 15 of its paper, 16 shots of EuroSAT; `changes` are made to this."""
    settings = {"backbone": CLIP, "eps": 1 / 255, "resize": "crop", "data": dataset("eurosat", group="benchmark")}
    settings |= changes
    settings["fit"] = {"resize": "squash", "train_eps": 1 / 255} | settings.get("fit", {})
    spec = cell(method_spec=recipe, **settings)
    spec = replace(spec, attack=attack, threat=replace(spec.threat, **threat))
    return tables_of([(record(spec), outcomes([1, 1, 1, 0], [1, 0, 0, 0]))])[0]


def test_every_number_has_a_source_table_with_a_protocol():
    numbers = published.load_published()
    assert len(numbers) == 1617 + 66
    described = {(entry["source"], entry["table"]) for entry in published.protocols()["tables"]}
    assert {(item.source, item.table) for item in numbers} == described
    assert all("match" in entry or "why_not" in entry for entry in published.protocols()["tables"])
    assert all(0 <= item.value <= 100 for item in numbers)


def test_select_by_name_and_pivot_with_the_mean_of_complete_rows():
    items = published.select(source="fap", table="Table 15", method="FAP", dataset="eurosat", shots="16")
    assert {item.stat for item in items} == {"mean", "std"}
    with pytest.raises(UnknownName, match="Table 8"):
        published.select(source="FAP", table="Table 99")
    header, body = published.pivot(published.select(table="Table 2", source="TAPT", method="APT-V", backbone="B/16"))
    assert len(header) == 9 + 11 + 1
    values = [float(value) for value in body[0][9:20]]
    assert float(body[0][-1]) == pytest.approx(sum(values) / 11, abs=0.006)


def test_a_number_is_paired_where_everything_agrees():
    clean, robust = published.reproductions(table())
    assert [(pair.published.table, pair.published.attack) for pair in (clean, robust)] == [
        ("Table 14", "none"), ("Table 15", "pgd-100"),
    ]  # fmt: skip
    assert (clean.column, clean.dataset, clean.method) == ("clean", "eurosat", "fap")
    assert (robust.column, robust.measured.value) == (PGD_100.label, 0.25)
    assert clean.difference == pytest.approx(75 - clean.published.value)


@pytest.mark.parametrize("changes", [
    {"backbone": replace(CLIP, name="ViT-B-32-quickgelu/laion2b")},
    {"backbone": replace(CLIP, name="ViT-B-16-quickgelu/openai")},
    {"backbone": replace(CLIP, training="robust")},
    {"limit": 100},
    {"split": "val"},
    {"shots": 3},
    {"precision": "bf16"},
    {"fit": {"resize": "crop"}},
    {"fit": {"train_eps": 4 / 255}},
    {"resize": "squash"},
    {"data": dataset("food", group="benchmark")},
    {"data": dataset("eurosat", group="mine")},
    {"task": "cross_dataset", "source": dataset("caltech101", group="benchmark")},
    {"task": "base_to_new", "fit": {"classes": "base"}, "classes": "all"},
    {"recipe": method("unheard_of")},
    {"threat": {"norm": "L2", "eps": 0.5}},
    {"threat": {"knowledge": "transfer", "source": "clip"}},
], ids=str)  # fmt: skip
def test_nothing_is_paired_when_one_part_of_the_protocol_differs(changes):
    assert published.reproductions(table(**changes)) == []


@pytest.mark.parametrize("changes", [
    {"attack": parse_attack("pgd")},
    {"attack": parse_attack("autoattack")},
    {"attack": replace(PGD_100, options={**PGD_100.options, "steps": 99})},
    {"eps": 2 / 255},
], ids=["other attack", "stronger attack", "one step less", "other budget"])  # fmt: skip
def test_robust_numbers_need_the_same_attack_with_its_options_and_the_same_budget(changes):
    assert [pair.published.attack for pair in published.reproductions(table(**changes))] == ["none"]


def test_a_recipe_that_is_not_the_papers_is_said_beside_the_number():
    suite = load_suite("fap-fewshot")
    papers = suite_recipe("fap", suite.recipe, suite.recipes)
    assert {pair.deviation for pair in published.reproductions(table(papers))} == {
        published.protocols()["deviations"]["FAP"]
    }
    mine = replace(papers, training={**papers.training, "epochs": 3})
    (deviation,) = {pair.deviation for pair in published.reproductions(table(mine))}
    assert deviation.endswith("not the recipe of the suite fap-fewshot: training.epochs 3, there 10")


def test_zero_shot_needs_no_training_protocol_but_the_same_test_images():
    setting = {"recipe": method("zero_shot", trains=False), "task": "cross_dataset", "shots": 0}
    setting["fit"] = {"train_eps": None}
    found = [(pair.published.source[:4], pair.published.table, pair.published.attack)
             for pair in published.reproductions(table(**setting))]  # fmt: skip
    assert found == [("FAP ", "Table 8", "none"), ("FAP ", "Table 8", "pgd-100"), ("TAPT", "Table 1", "pgd-100")]
    assert published.reproductions(table(**setting, resize="squash")) == []


CLEAN, PAPER, SOUND = [1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]


def measured(knowledge="white_box", **changes):
    """The table of an imported checkpoint on caltech101 under PGD-100 and a sound attack."""
    spec = {
        "method_spec": method("imported-coop@1", trains=False), "backbone": CLIP, "eps": 1 / 255,
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
