"""The suites of the papers: every number has its source, and the published tables find their protocol in them."""

import itertools

import pytest
from synthetic import outcomes, record

from apd_bench.attacks.parse import parse_attack
from apd_bench.core.identity import digest
from apd_bench.core.options import RunOptions
from apd_bench.core.specs import Cell
from apd_bench.leaderboard import published
from apd_bench.leaderboard.aggregate import tables
from apd_bench.leaderboard.tidy import measurement
from apd_bench.methods.recipes import load_recipe, suite_recipe
from apd_bench.runner.plan import Plan, plan
from apd_bench.runner.selection import resolve
from apd_bench.suites import load_suite

PAPERS = ("fap-cross", "fap-b2n", "fap-fewshot", "apt", "apt-shift", "mapt", "apd", "audit")
TEST_TIME = ("test-time", "test-time-ttc", "test-time-r-tpt", "test-time-tapt")
CHOICES = ("backbones", "datasets", "defences", "attacks", "eps", "shots", "seeds", "limit", "test_resize", "train_eps")
TAPT = {("Table 1", "pgd-100"), ("Table 1", "autoattack"), ("Table 2", "none")}
OPTIONAL = {("Table 1", "di-fgsm")}  # needs the extra torchattacks
KINDS = ("paper", "code", "inferred", "secondary", "reason", "measured")
ELEVEN = {
    "imagenet", "caltech101", "dtd", "eurosat", "oxford_pets", "fgvc_aircraft", "food101", "oxford_flowers",
    "stanford_cars", "sun397", "ucf101",
}  # fmt: skip


def planned(name: str, **chosen: object) -> Plan:
    return plan(resolve(load_suite(name), RunOptions(**chosen)))  # type: ignore[arg-type]


def flat(table: object, prefix: str) -> list[str]:
    if not isinstance(table, dict):
        return [prefix]
    return [name for key, value in table.items() for name in flat(value, f"{prefix}.{key}")]


@pytest.mark.parametrize("name", [*PAPERS, *TEST_TIME, "embedded"])
def test_every_number_of_a_suite_has_its_source(name: str) -> None:
    suite = load_suite(name)
    wanted = flat(dict(suite.recipe), "recipe") + flat(dict(suite.recipes), "recipes")
    wanted += [f"rules.{place}" for place, _ in enumerate(suite.rules, 1)]
    if name != "embedded":
        wanted += [choice for choice in CHOICES if getattr(suite, choice)]
    assert [key for key in wanted if key not in suite.sources] == []
    known = {*wanted, *CHOICES, "methods", "resize"}
    assert [key for key in suite.sources if key not in known] == []
    assert name == "embedded" or all(source.startswith(KINDS) for source in suite.sources.values())


@pytest.mark.parametrize("name", PAPERS)
def test_a_suite_of_a_paper_can_be_planned_whole(name: str) -> None:
    found = planned(name, seeds=(1,), datasets=("dtd", "imagenet"))
    extras = [item.reason for item in found.impossible if "extra package" not in item.reason]
    assert found.cells and extras == []
    suite = load_suite(name)
    assert set(suite.datasets) >= ELEVEN
    assert {cell.threat.eps for cell in found.cells} == set(suite.eps)


@pytest.mark.parametrize("name", TEST_TIME)
def test_defences_are_attacked_as_in_their_papers_and_through_their_adaptation(name):
    suite, found = load_suite(name), planned(name)
    missing = {one.cell.attack.label for one in found.impossible if "extra package" in one.reason}
    assert {one.cell.attack.label for one in found.impossible} == missing and len(missing) <= 1  # torchattacks' DI-FGSM
    ways = {}
    for cell in found.cells:
        key = (cell.defence and cell.defence.label, cell.dataset.name, cell.fit.backbone.name, cell.threat.eps)
        ways.setdefault(key, set()).add((cell.threat.knowledge, cell.attack.label))
    papers = {parse_attack(text).label for text in suite.attacks} - missing
    assert len(ways) == (1 + len(suite.defences)) * len(suite.datasets) * len(suite.backbones) * len(suite.eps)
    for (defence, *_), attacks in ways.items():
        static = {("undefended" if defence else "white_box", label) for label in papers}
        assert attacks == static | ({("white_box", "adaptive")} if defence else set())


def test_the_texts_of_test_time_defences_are_those_of_their_papers():
    texts = {name: {cell.dataset.template for cell in planned(name).cells} for name in TEST_TIME}
    assert texts["test-time-ttc"] == {"This is a photo of a {}."} and texts["test-time-r-tpt"] == {"a photo of a {}."}
    assert not any(text.startswith("{}") for text in texts["test-time"])  # TPT and R-TPT tune the words before the name


def test_fap_fits_as_its_scripts_do_and_the_frame_of_advvp_at_its_own_rate() -> None:
    (fit,) = {cell.fit.id: cell.fit for cell in fap("fap-cross", "caltech101")}.values()
    assert (fit.dataset.name, fit.shots, fit.resize, fit.train_eps) == ("imagenet", 16, "squash", 1 / 255)
    assert (fit.method.training["epochs"], fit.method.training["batch_size"]) == (5, 4)
    cells = fap("fap-b2n", "dtd")
    assert {(cell.fit.classes, cell.classes) for cell in cells} == {("base", "base"), ("base", "new")}
    assert {cell.test_resize for cell in cells} == {"crop"}
    assert {cell.fit.method.training["epochs"] for cell in cells} == {10}
    assert {cell.fit.shots for cell in fap("fap-fewshot", "dtd")} == {1, 2, 4, 8, 16}
    rates = {"fap-cross": (30.0, 5, 4), "fap-b2n": (40.0, 10, 4), "fap-fewshot": (40.0, 10, 4)}
    for name, expected in rates.items():
        fits = {cell.fit.id: cell.fit.method.training for cell in fap(name, "dtd", "advvp.frame")}
        assert {(one["lr"], one["epochs"], one["batch_size"]) for one in fits.values()} == {expected}


def fap(suite: str, dataset: str, method: str = "fap") -> list[Cell]:
    return list(planned(suite, methods=(method,), datasets=(dataset,), seeds=(1,), no_reference=True).cells)


@pytest.mark.parametrize(
    ("dataset", "epochs"), [("dtd", {1: 50, 4: 100, 16: 200, -1: 200}), ("imagenet", {1: 50, 4: 50, 16: 50, -1: 20})]
)
def test_apts_epochs_follow_shots_and_set(dataset: str, epochs: dict[int, int]) -> None:
    cells = planned("apt", methods=("apt",), datasets=(dataset,), seeds=(1,), no_reference=True).cells
    assert {cell.fit.shots: cell.fit.method.training["epochs"] for cell in cells} == epochs


def test_apt_mapt_and_the_audit_train_and_attack_as_their_papers_do() -> None:
    cells = planned("apt", datasets=("dtd",), seeds=(1,)).cells
    assert {cell.fit.backbone.training for cell in cells} == {"robust"}
    assert {cell.fit.train_eps for cell in cells if cell.fit.method.trains} == {4 / 255}
    assert {cell.attack.name for cell in cells} == {"pgd.apt", "tpgd", "cw", "autoattack"}
    fits = planned("mapt", datasets=("imagenet",)).fits.values()
    trained = [fit for fit in fits if fit.method.trains]
    assert {fit.method.objective_options["loss"] for fit in trained} == {"half"}
    assert {(fit.method.training["epochs"], fit.method.training["batch_size"]) for fit in trained} == {(100, 32)}
    assert {fit.method.training["lr"] for fit in trained} == {0.0035}
    assert {fit.method.inner_attack["steps"] for fit in trained} == {2}
    suite = load_suite("audit")
    assert suite.eps == (1 / 255, 2 / 255, 4 / 255) and suite.seeds == (1, 2, 3) and "autoattack" in suite.attacks
    cells = [cell for cell in planned("audit", datasets=("dtd",)).cells if cell.fit.train_eps is not None]
    assert all(cell.fit.train_eps == cell.threat.eps for cell in cells)


@pytest.mark.parametrize("name", ["apd", "audit"])
def test_every_method_has_the_same_budget(name: str) -> None:
    fits = [fit for fit in planned(name, datasets=("dtd",), seeds=(1,)).fits.values() if fit.method.trains]
    assert len({tuple(sorted(fit.method.training.items())) for fit in fits}) == 1


@pytest.mark.parametrize(("suite", "method", "backbone", "dataset", "expected"), [
    ("fap-cross", "fap", "ViT-B-32-quickgelu/openai", "dtd", {("Table 8", "none"), ("Table 8", "pgd-100")}),
    ("fap-cross", "fap", "ViT-B-16-quickgelu/openai", "dtd", {("Table 11", "none"), ("Table 11", "pgd-100")}),
    ("fap-b2n", "advvlp", "ViT-B-32-quickgelu/openai", "eurosat", {("Table 16", "none"), ("Table 16", "pgd-100")}),
    ("fap-fewshot", "advtp", "ViT-B-32-quickgelu/openai", "dtd", {("Table 14", "none"), ("Table 15", "pgd-100")}),
    ("mapt", "advvlp.half", "ViT-B-16-quickgelu/openai", "dtd", TAPT),
])  # fmt: skip
def test_a_published_table_stands_beside_the_cells_of_its_suite(suite, method, backbone, dataset, expected):
    asked = {"methods": (method,), "backbones": (backbone,), "datasets": (dataset,), "seeds": (1,)}
    cells = planned(suite, **asked, no_reference=True).cells
    found = tables(measurement(record(cell), outcomes([1, 1, 1, 0], [1, 0, 0, 0])) for cell in cells)
    pairs = [pair.published for table in found for pair in published.reproductions(table)]
    found = {(item.table, item.attack) for item in pairs if item.source.startswith(("FAP", "TAPT"))}
    assert found - OPTIONAL == expected


@pytest.mark.parametrize("name", ["apd-ablation", "apd-ablation-full"])
def test_every_row_is_another_method_and_they_differ_in_their_losses_alone(name):
    suite = load_suite(name)
    recipes = [load_recipe(method) for method in suite.methods]
    options = {digest([recipe.objective_options, recipe.inner_attack]) for recipe in recipes}
    assert len(options) == len(recipes)
    bimodal = [method for method in (*suite.methods, *suite.reference) if method != "zero_shot"]
    recipes = [suite_recipe(method, suite.recipe, suite.recipes) for method in bimodal]
    assert len({digest([recipe.learner, recipe.learner_options, recipe.training]) for recipe in recipes}) == 1


def test_the_full_grid_is_complete():
    rows = set()
    for method in load_suite("apd-ablation-full").methods:
        recipe = load_recipe(method)
        options = recipe.objective_options
        rows.add((
            options["teacher"], options["direction"], recipe.inner_attack["loss"], options["temperature"],
            options["label_weight"],
        ))  # fmt: skip
    grid = itertools.product(
        ("online", "offline", "zero_shot"), ("forward", "reverse"), ("ce", "kl"), (1, 2, 4), (0, 0.5)
    )
    assert rows == set(grid)


def test_every_switch_is_changed_in_some_row_of_the_short_suite():
    plain = load_recipe("apd").objective_options
    rows = [load_recipe(method) for method in load_suite("apd-ablation").methods]
    changed = {key for row in rows for key, value in row.objective_options.items() if value != plain[key]}
    assert changed == set(plain) and "kl" in {row.inner_attack["loss"] for row in rows}
