"""Specs refuse what cannot be meant, and their ids hold exactly what can change a number."""

from dataclasses import replace

import pytest

from apd_bench.errors import UsageError
from apd_bench.specs import (
    AttackSpec,
    BackboneSpec,
    Cell,
    DatasetSpec,
    Fit,
    MethodRecipe,
    ThreatModel,
    format_eps,
    parse_call,
    parse_eps,
)

BACKBONE = BackboneSpec(name="tiny", architecture="tiny", weights="w", activation="gelu", digest="1")
METHOD = MethodRecipe(name="apd", learner="independent", objective="distillation", training={"epochs": 5})
ZERO = MethodRecipe(name="zero_shot", learner="template", objective=None)
DATASET = DatasetSpec(name="pets", loader="m:load", template="a photo of a {}.", options={"root": "/a"})
FIT = Fit(backbone=BACKBONE, method=METHOD, dataset=DATASET, seed=1, train_eps=2 / 255)
CELL = Cell(fit=FIT, dataset=DATASET, threat=ThreatModel(eps=2 / 255), attack=AttackSpec(name="pgd"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("4/255", 4 / 255), ("0.5", 0.5), (0, 0.0), ("1", 1.0), (" 8 / 255", 8 / 255), ("0.5/255", 0.5 / 255)],
)
def test_eps_is_read_in_the_spellings_of_the_field(text, value):
    assert parse_eps(text) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8", "Did you mean 8/255"),
        ("-1/255", r"outside \[0, 1\]"),
        *((text, "not a number") for text in ("x", "1/0", "nan", "1/", "1/2/3", "1e999999999", None)),
    ],
)
def test_an_impossible_eps_is_refused_with_what_is_meant(text, words):
    with pytest.raises(UsageError, match=words):
        parse_eps(text)


@pytest.mark.parametrize(
    ("text", "numerator"),
    [("0.0157", 4), ("0.01176", 3), ("0.0118", 3), ("0.0314", 8), ("0.0078", 2), (0.00392156862745, 1), ("0.2", 51)],
)
def test_decimals_that_differ_from_255ths_by_rounding_are_one_budget(text, numerator):
    assert parse_eps(text) == numerator / 255 == ThreatModel(eps=float(text)).eps
    assert (
        replace(CELL, threat=ThreatModel(eps=parse_eps(text))).id
        == replace(CELL, threat=ThreatModel(eps=numerator / 255)).id
    )


def test_other_decimals_stay_what_they_are():
    for text in ("0.031", "0.3", "0.0001", "0.00002", "0.5"):  # 0.031 is a budget of its own in the literature
        assert parse_eps(text) == float(text)


def test_an_l2_budget_is_decimal_and_never_the_size_of_a_linf_budget():
    assert parse_eps("3.0", norm="L2") == 3.0
    assert parse_eps("0.2", norm="L2") == 0.2 and parse_eps("128/255", norm="L2") == 128 / 255
    assert [format_eps(value, "L2") for value in (0.5, 0.2, 3.0)] == ["0.5", "0.2", "3"]
    assert ThreatModel(eps=0.5, norm="L2").label == "L2 0.5 white-box"
    for given in ("3/255", 3 / 255, "0.5/255"):
        with pytest.raises(UsageError, match=r"usual L2 budget is 0.5; where .* write 0\.0"):
            parse_eps(given, norm="L2")
    assert parse_eps("0.012", norm="L2") == 0.012
    with pytest.raises(UsageError, match="eps 3/255 is the size of a Linf budget"):
        ThreatModel(eps=3 / 255, norm="L2")
    with pytest.raises(UsageError, match=r"Write it as 0\.5\."):
        parse_eps("much", norm="L2")


def test_eps_is_printed_as_people_write_it():
    assert [format_eps(value) for value in (4 / 255, 0.5 / 255, 0.3, 0.0)] == ["4/255", "0.5/255", "76.5/255", "0/255"]
    assert format_eps(0.0123) == "0.0123"


def test_threat_models_refuse_nonsense():
    with pytest.raises(UsageError, match="Linf, L2"):
        ThreatModel(eps=0.1, norm="L7")
    with pytest.raises(UsageError, match="transfer"):
        ThreatModel(eps=0.1, knowledge="transfer")
    with pytest.raises(UsageError, match="8/255"):
        ThreatModel(eps=8)


def test_attack_calls_are_parsed_safely():
    assert parse_call("pgd(steps=20, loss='ce')") == ("pgd", {"steps": 20, "loss": "ce"})
    assert parse_call("autoattack") == ("autoattack", {})
    assert parse_call("pgd(step=1/4)") == ("pgd", {"step": 0.25})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(
            (text, "does not read as NAME")
            for text in ("pgd(20)", "pgd(steps", "pgd(a=1)(b=2)", "pgd(a=1).b", "pgd(\0)")
        ),
        ("pgd(" + "(" * 5000, "does not read as NAME"),
        ("pgd(steps=__import__('os'))", "'__import__('os')' in pgd(steps=...) is neither a number"),
        ("pgd(loss=ce)", "Text needs quotes: 'ce'"),
        ("pgd(step=1/0)", "neither a number"),
        ("pgd(steps=1, steps=2)", "gives 'steps' twice"),
        ("pgd(**{'steps': 1})", "without a name"),
        ("pgd(steps=" + "-" * 5000 + "1)", "pgd"),
    ],
)
def test_what_is_no_call_is_told_in_the_words_of_the_person(text, said):
    with pytest.raises(UsageError) as caught:
        parse_call(text)
    assert said in str(caught.value)
    for inside in ("ast", "malformed", "<unknown>", "object at"):
        assert inside not in str(caught.value).replace(text, "")


def test_everything_that_changes_the_number_changes_the_id():
    others = [
        replace(CELL, threat=ThreatModel(eps=4 / 255)),
        replace(CELL, attack=AttackSpec(name="pgd", version=2)),
        replace(CELL, attack=AttackSpec(name="pgd", options={"steps": 7})),
        replace(CELL, limit=20),
        replace(CELL, fit=replace(FIT, seed=0)),
        replace(CELL, fit=replace(FIT, backbone=replace(BACKBONE, digest="2"))),
        replace(CELL, fit=replace(FIT, backbone=replace(BACKBONE, activation="quick_gelu"))),
        replace(CELL, fit=replace(FIT, method=replace(METHOD, training={"epochs": 6}))),
        replace(CELL, dataset=replace(DATASET, template="{}")),
        replace(CELL, precision="bf16"),
    ]
    assert len({cell.id for cell in [CELL, *others]}) == len(others) + 1


def test_what_cannot_change_the_number_does_not_change_the_id():
    moved = replace(DATASET, options={"root": "/elsewhere"}, licence="other", description="x")
    titled = replace(METHOD, title="APD", sources={"training.epochs": "inferred"})
    same = replace(CELL, fit=replace(FIT, dataset=moved, method=titled), dataset=moved)
    assert same.id == CELL.id


def test_a_method_without_training_has_one_fit_for_all_seeds_and_budgets():
    fits = {
        Fit(backbone=BACKBONE, method=ZERO, dataset=DATASET, seed=s, train_eps=e).id
        for s in (1, 2)
        for e in (None, 0.1)
    }
    assert len(fits) == 1


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(UsageError, match="leaves nothing"):
        replace(CELL, limit=0)
