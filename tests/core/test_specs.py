"""Specs refuse what cannot be meant, and their ids hold exactly what can change a number."""

from dataclasses import fields, is_dataclass, replace

import pytest

from apd_bench.core.errors import UsageError
from apd_bench.core.identity import identify, is_recorded
from apd_bench.core.specs import (
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
DATASET = DatasetSpec(name="pets", template="a photo of a {}.", options={"root": "/a"})
FIT = Fit(backbone=BACKBONE, method=METHOD, dataset=DATASET, seed=1, train_eps=2 / 255)
CELL = Cell(fit=FIT, dataset=DATASET, threat=ThreatModel(eps=2 / 255), attack=AttackSpec(name="pgd"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("4/255", 4 / 255), ("0.5", 0.5), (0, 0.0), ("1", 1.0), (" 8 / 255", 8 / 255), ("0.5/255", 0.5 / 255)],
)
def test_eps_is_read_in_the_spellings_of_the_field(text, value):
    assert parse_eps(text) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("text", "words"), [
    ("8", "Did you mean 8/255"),
    ("-1/255", r"outside \[0, 1\]"),
    *((text, "not a number") for text in ("x", "1/0", "nan", "1/", "1/2/3", "1e999999999", None)),
])  # fmt: skip
def test_an_impossible_eps_is_refused_with_what_is_meant(text, words):
    with pytest.raises(UsageError, match=words):
        parse_eps(text)


@pytest.mark.parametrize(
    ("text", "numerator"),
    [("0.0157", 4), ("0.01176", 3), ("0.0118", 3), ("0.0314", 8), ("0.0078", 2), (0.00392156862745, 1), ("0.2", 51),
     ("0.011764705882352941", 3), ("0.01176470588", 3)],
)  # fmt: skip
def test_decimals_that_differ_from_255ths_by_rounding_are_one_budget(text, numerator):
    assert parse_eps(text) == numerator / 255 == ThreatModel(eps=float(text)).eps


def test_other_decimals_stay_what_they_are_and_eps_is_printed_as_people_write_it():
    for text in ("0.031", "0.3", "0.0001", "0.00002", "0.5"):  # 0.031 is a budget of its own in the literature
        assert parse_eps(text) == float(text)
    assert [format_eps(value) for value in (4 / 255, 0.5 / 255, 0.3, 0.0)] == ["4/255", "0.5/255", "76.5/255", "0/255"]
    assert format_eps(0.0123) == "0.0123"


@pytest.mark.parametrize(("one", "other", "norm"), [
    (0.1 + 0.2, 0.3, "L2"), ("127.5/255", 0.5, "L2"),
    ("0.5/255", 0.0019607843, "Linf"), (0.0123 + 1e-9, 0.0123, "Linf"),
])  # fmt: skip
def test_budgets_that_are_written_alike_are_one(one, other, norm):
    assert parse_eps(one, norm) == parse_eps(other, norm) == parse_eps(parse_eps(one, norm), norm)


def test_an_l2_budget_is_decimal_and_never_the_size_of_a_linf_budget():
    assert parse_eps("3.0", norm="L2") == 3.0
    assert parse_eps("0.2", norm="L2") == 0.2 and parse_eps("128/255", norm="L2") == 0.501961
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
    with pytest.raises(UsageError, match=r"eps '-1' is below 0"):
        parse_eps("-1", norm="L2")


def test_threat_models_and_limits_refuse_nonsense():
    with pytest.raises(UsageError, match="leaves nothing"):
        replace(CELL, limit=0)
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


@pytest.mark.parametrize(("text", "said"), [
    *((text, "does not read as NAME") for text in
      ("pgd(20)", "pgd(steps", "pgd(a=1)(b=2)", "pgd(a=1).b", "pgd(\0)", "pgd(" + "(" * 5000)),
    ("pgd(steps=__import__('os'))", "'__import__('os')' in pgd(steps=...) is neither a number"),
    ("pgd(loss=ce)", "Text needs quotes: 'ce'"),
    ("pgd(step=1/0)", "neither a number"),
    ("pgd(steps=1, steps=2)", "gives 'steps' twice"),
    ("pgd(**{'steps': 1})", "without a name"),
    ("pgd(steps=" + "-" * 5000 + "1)", "pgd"),
])  # fmt: skip
def test_what_is_no_call_is_told_in_the_words_of_the_person(text, said):
    with pytest.raises(UsageError) as caught:
        parse_call(text)
    assert said in str(caught.value)
    for inside in ("ast", "malformed", "<unknown>", "object at"):
        assert inside not in str(caught.value).replace(text, "")


SPECS = [ThreatModel(eps=0.5), AttackSpec(name="pgd"), BACKBONE, DATASET, METHOD, FIT, CELL]
# A value that a field may have besides the one above; of other fields, one is made from the type.
OTHER = {
    "norm": "L2", "knowledge": "hand_prompt", "source": "apt", "training": "robust", "classes": "base",
    "resize": "squash", "task": "base_to_new", "split": "val", "precision": "bf16", "eps": 0.2, "train_eps": 0.2,
    ("Fit", "backbone"): replace(BACKBONE, digest="2"), ("Fit", "method"): replace(METHOD, learner="text"),
    ("Cell", "fit"): replace(FIT, seed=9), ("Cell", "attack"): AttackSpec(name="cw"), ("Cell", "source"): FIT,
    ("Cell", "threat"): ThreatModel(eps=4 / 255), ("MethodRecipe", "training"): {"epochs": 6},
    **{(kind, "dataset"): replace(DATASET, version=2) for kind in ("Fit", "Cell")},
    **{(kind, "source"): "elsewhere" for kind in ("BackboneSpec", "DatasetSpec")},
}  # fmt: skip
# What counts in no id, because another field decides it or no number can depend on it.
COUNTS_NOT = {
    "BackboneSpec": {"image_size", "offers", "loader", "title", "licence", "source", "aliases"},
    "DatasetSpec": {
        "title", "group", "num_classes", "counts", "image_size", "licence", "source", "aliases", "loader", "citation",
        "description",
    },
    "MethodRecipe": {"needs", "sources", "title", "paper", "state", "reconstruction"},
}  # fmt: skip


def another(spec, item):
    """Another value for a field of a spec."""
    kind, value = type(spec).__name__, getattr(spec, item.name)
    if (kind, item.name) in OTHER or item.name in OTHER:
        return OTHER.get((kind, item.name), OTHER.get(item.name))
    if isinstance(value, dict):
        return {**value, "more": 1}
    if isinstance(value, tuple):
        return (*value, "more")
    return value + 7 if isinstance(value, int) else "another" if value is None or isinstance(value, str) else None


@pytest.mark.parametrize(
    ("spec", "item"), [(spec, item) for spec in SPECS for item in fields(spec)],
    ids=[f"{type(spec).__name__}.{item.name}" for spec in SPECS for item in fields(spec)],
)  # fmt: skip
def test_every_field_counts_in_the_id_or_is_declared_not_to(spec, item):
    changes = {item.name: another(spec, item)}
    if isinstance(spec, ThreatModel) and item.name == "source":
        changes["knowledge"], spec = "transfer", ThreatModel(eps=0.1, knowledge="transfer", source="apd")
    if item.name == "limit":
        changes["limit"] = 3
    changed = replace(spec, **changes)
    assert getattr(changed, item.name) != getattr(spec, item.name)
    declared = item.name in COUNTS_NOT.get(type(spec).__name__, ())
    assert (identify(changed) == identify(spec)) == declared
    assert declared or is_recorded(item), "what counts is recorded"


def test_no_spec_says_by_hand_what_counts_and_where_things_lie_counts_nowhere():
    assert not any(hasattr(spec, "identity") for spec in SPECS)
    reached = {type(spec) for spec in SPECS}
    assert {type(value) for spec in SPECS for value in vars(spec).values() if is_dataclass(value)} <= reached
    moved = replace(DATASET, options={"root": "/elsewhere", "path": "/x"})
    assert replace(CELL, fit=replace(FIT, dataset=moved), dataset=moved).id == CELL.id
    for kind in ("folder:", "local:", "local-robust:"):
        one, two = (replace(spec, name=f"{kind}{place}") for spec in (DATASET,) for place in ("a", "b"))
        assert identify(one) == identify(two) != identify(DATASET)


def test_a_method_without_training_has_one_fit_for_all_seeds_and_budgets():
    fits = {
        Fit(backbone=BACKBONE, method=ZERO, dataset=DATASET, seed=s, train_eps=e, shots=k, classes=c).id
        for s in (1, 2)
        for e, k, c in ((None, 1, "all"), (0.1, 16, "base"))
    }
    assert len(fits) == 1
