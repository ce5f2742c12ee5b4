"""A search never sees a test image; its tries are ordinary cells, made once, here or from the table alone."""

import shutil

import pytest

from apd_bench.cli import main
from apd_bench.core.errors import UsageError, UserError
from apd_bench.core.options import RunOptions
from apd_bench.core.registry import DATASETS
from apd_bench.data.protocols import few_shot, held_out
from apd_bench.data.splits import load_dataset
from apd_bench.leaderboard.boards import collect
from apd_bench.methods.recipes import suite_recipe
from apd_bench.records.store import Store
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import resolve
from apd_bench.suites import load_suite
from apd_bench.tuning.choice import Tuned
from apd_bench.tuning.files import overlay
from apd_bench.tuning.search import search, untested
from apd_bench.tuning.space import nested, space_of
from apd_bench.tuning.trials import read_trials

EMBEDDED = sorted(entry.name for entry in DATASETS if entry.group == "embedded")


@pytest.mark.parametrize("name", EMBEDDED)
def test_few_shot_held_out_and_test_images_are_disjoint(name):
    data = load_dataset(DATASETS.get(name), image_size=40)
    for shots, seed in ((1, 1), (16, 1), (16, 2), (16, 3), (-1, 1)):
        drawn = few_shot(data.train, None, shots, seed)[0]
        scored = held_out(data, drawn.ids)
        parts = [set(drawn.ids), set(scored.ids), set(data.test.ids)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(data.train) + len(data.val) + len(data.test)
        pictures = [{image.tobytes() for image in split.images().numpy()} for split in (drawn, scored, data.test)]
        assert not any(one & other for place, one in enumerate(pictures) for other in pictures[place + 1 :])
        labels = {**dict(zip(data.train.ids, data.train.labels.tolist(), strict=True)),
                  **dict(zip(data.val.ids, data.val.labels.tolist(), strict=True))}  # fmt: skip
        assert scored.labels.tolist() == [labels[one] for one in scored.ids]
    places = [len(scored) - 1, 0, 1]
    whole = scored.images()
    assert scored.subset(places).images().equal(whole[places])


def test_a_small_validation_split_is_filled_up_and_a_large_one_is_not():
    for limit, splits in ((20, {"val"}), (100, {"held_out"}), (55, {"val", "held_out"})):
        grids = list(search(load_suite("embedded"), RunOptions(datasets=("animals", "food"), limit=limit), 1).plans(0))
        assert {cell.split for grid in grids for cell in grid.cells} == splits
        assert sum(len(grid.cells) for grid in grids) == 24


@pytest.mark.parametrize(("selection", "said"), [
    (RunOptions(settings=("split=test",)), "never on test images"),
    (RunOptions(settings=("split=val",)), "not for choice"),
    (RunOptions(methods=("zero_shot",)), "learns nothing"),
    (RunOptions(methods=("apdd",)), "Did you mean 'apd'"),
    (RunOptions(eps=("1/255", "2/255")), "one budget"),
    (RunOptions(attacks=("pgd", "cw")), "one attack"),
    (RunOptions(shots=(1, 16)), "one number of shots"),
])  # fmt: skip
def test_an_unfair_search_is_refused(selection, said):
    with pytest.raises(UserError, match=said):
        search(load_suite("embedded"), selection, 2)


def test_test_images_and_what_cannot_be_measured_are_refused_before_anything_is_spent():
    with pytest.raises(UsageError, match="never looks at test images"):
        untested(plan(resolve(load_suite("ci"), RunOptions())))
    hunt = search(load_suite("embedded"), RunOptions(methods=("apd", "coop"), backbones=("RN50-quickgelu/openai",)), 1)
    with pytest.raises(UsageError, match=r"apd needs .* Leave the method or the set out"):
        list(hunt.plans(0))


def test_two_tries_on_the_ci_suite_and_again_from_the_table_alone(tmp_path, capsys):
    words = ["tune", "ci", "--methods", "coop,apd", "--limit", "4", "--display", "none", "--jobs", "1"]
    assert main([*words, "--trials", "2", "--results", str(tmp_path / "one")]) == 0
    folder = tmp_path / "one" / "tuning"
    lines = read_trials(folder / "trials.csv")
    assert {(one.method, one.trial) for one in lines.values()} == {(m, t) for m in ("coop", "apd") for t in (0, 1)}
    store = Store(folder)
    for one in lines.values():
        record = store.record(one.cell)
        assert (record.cell.split, record.cell.fit.id) == (one.split, one.fit) == ("val", one.fit)
        assert record.metrics["robust_accuracy"] == pytest.approx(one.robust, abs=1e-6)
    assert {table.key.protocol.split for table in collect([folder]).tables} == {"val"}

    (tmp_path / "two" / "tuning").mkdir(parents=True)  # another machine, with the table and nothing else
    shutil.copy(folder / "trials.csv", tmp_path / "two" / "tuning")
    assert main([*words, "--trials", "2", "--results", str(tmp_path / "two")]) == 0
    assert not Store(tmp_path / "two" / "tuning").statuses()
    for name in ("trials.csv", "tuned.toml", "tuning.md", "gains.csv", "curve.csv"):
        assert (tmp_path / "two" / "tuning" / name).read_text() == (folder / name).read_text()

    (folder / "trials.csv").unlink()  # the records alone are enough, too
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}
    assert main([*words, "--trials", "2", "--results", str(tmp_path / "one")]) == 0
    assert read_trials(folder / "trials.csv") == lines
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")} == before
    capsys.readouterr()

    assert main(["plan", "--suite", str(folder / "tuned.toml"), "--methods", "coop,apd", "--json"]) == 0
    assert '"ci-tuned"' in capsys.readouterr().out


def test_the_tuned_suite_has_the_best_recipes_and_their_sources(tmp_path):
    hunt = search(load_suite("embedded"), RunOptions(methods=("apd", "advvlp.trades")), 3)
    results = [
        Tuned(name, scores, scores, scores, {number: space_of(name).configuration(number) for number in scores})
        for name, scores in (("apd", {0: 1.0, 1: 2.0, 2: 3.0}), ("advvlp.trades", {0: 1.0, 1: 4.0, 2: 3.0}))
    ]
    path = tmp_path / "tuned.toml"
    path.write_text(overlay(load_suite("embedded"), "embedded", hunt, results, "harmonic"))
    suite = load_suite(str(path))
    for name, best in (("apd", 2), ("advvlp.trades", 1)):
        recipe = suite_recipe(name, suite.recipe, suite.recipes)
        for section, options in nested(space_of(name).configuration(best)).items():
            for option, value in options.items():
                stored = {"learner": recipe.learner_options, "objective": recipe.objective_options,
                          "inner_attack": recipe.inner_attack, "training": recipe.training}[section]  # fmt: skip
                assert stored[option] == value
                assert suite.sources[f"recipes.{name}.{section}.{option}"].startswith("tuned, 3 trials, score ")
