"""Search spaces: what may vary, with which draws; every wrong file is refused in one sentence."""

import numpy as np
import pytest

from apd_bench.core.errors import UserError
from apd_bench.core.package_data import baselines_path
from apd_bench.core.registry import METHODS
from apd_bench.methods.catalog import BUILTIN
from apd_bench.methods.recipes import load_recipe, recipe_of
from apd_bench.tuning.search import tunable
from apd_bench.tuning.space import COLUMNS, OWN_COLUMNS, nested, read_space, shared_space, sobol, space_of

TRAINED = [name for name in BUILTIN if name != "zero_shot"]


def test_all_are_the_twelve_trained_methods_and_each_has_a_space():
    METHODS.get("apd(temperature=2)")  # what somebody wrote is no method of its own
    assert list(tunable(["all"])) == TRAINED
    assert not any("(" in name for name in METHODS.select(["all"]) + METHODS.select(["apd*"]))
    assert {path.parent.name for path in baselines_path().glob("*/space.toml")} == set(TRAINED)


@pytest.mark.parametrize("name", [*TRAINED, "advvlp.trades"])
def test_every_draw_is_a_recipe_and_try_0_is_the_recipe_itself(name):
    space = space_of(name)
    assert space.configuration(0) == {}
    for trial in range(1, 33):
        drawn = space.configuration(trial)
        assert drawn.keys() == space.distributions.keys()
        assert load_recipe(name, nested(drawn)) != load_recipe(name)
        for option, how in space.distributions.items():
            inside = (
                drawn[option] in how.values if how.kind == "choice" else how.values[0] <= drawn[option] <= how.values[1]
            )
            assert inside, option


def test_draws_are_shared_between_methods_and_more_leave_the_first_as_they_are():
    for trial in (1, 7, 31):
        seen = {}
        for name in TRAINED:
            space = space_of(name)
            for option, value in space.configuration(trial).items():
                if option in space.shared:
                    assert seen.setdefault(space.shared[option], value) == value
        assert seen.keys() == shared_space().keys()
    points = np.stack([sobol(trial) for trial in range(64)])
    assert points.shape == (64, COLUMNS)
    assert all(np.array_equal(sobol(trial), points[trial]) for trial in (1, 15))
    assert all(sorted(np.floor(column * 64)) == list(range(64)) for column in points.T)  # one in every 64th
    assert space_of("coop").configuration(1)["training.lr"] == 0.001447  # another scipy must not move a search


GOOD = '[own."objective.consistency_weight"]\nuniform = [0.5, 2.0]\nwhy = "a reason"\n'


@pytest.mark.parametrize(("text", "said"), [
    (GOOD.replace("consistency_weight", "consistency_wait"), "Did you mean 'objective.consistency_weight'"),
    (GOOD.replace("uniform", "gaussian"), "has 'gaussian'"),
    (GOOD.replace("uniform = [0.5, 2.0]", ""), "has 0 distributions"),
    (GOOD + "choice = [1.0, 2.0]\n", "has 2 distributions"),
    (GOOD.replace('why = "a reason"', ""), "gives no reason"),
    (GOOD.replace("[0.5, 2.0]", "[2.0, 0.5]"), "the smaller one first"),
    (GOOD.replace("[0.5, 2.0]", "[0.5, inf]"), "the smaller one first"),
    (GOOD.replace("uniform = [0.5", "log_uniform = [0.0"), "and above 0"),
    (GOOD.replace("uniform = [0.5, 2.0]", "choice = [1.0]"), "two or more values"),
    (GOOD.replace("uniform = [0.5, 2.0]", 'choice = ["a", "b"]'), "drawn from a | b, but the recipe has 1.5"),
    ('[shared]\n"training.lr" = "rate"\n', "Unknown shared hyper-parameter of 'training.lr'"),
    ('[shared]\n"training.lr" = "init"\n', "but the recipe has 0.0035"),
    ('[shared]\n"objective.consistency_weight" = "lr"\n' + GOOD, "in [shared] and in [own]"),
    ("[mine]\n", "Unknown table"),
    ("shared = 3\n", "'shared' in"),
    ("[own\n", "not valid TOML"),
])  # fmt: skip
def test_a_wrong_space_is_refused(tmp_path, text, said):
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"space\.toml") as raised:
        read_space(path, METHODS.get("fap"))
    assert said in str(raised.value)


def test_a_good_one_is_read(tmp_path):
    (tmp_path / "space.toml").write_text(GOOD)
    space = read_space(tmp_path / "space.toml", METHODS.get("fap"))
    weight = space.configuration(1)["objective.consistency_weight"]
    assert weight == float(f"{0.5 + 1.5 * sobol(1)[OWN_COLUMNS]:.4g}")
    assert (
        recipe_of(METHODS.get("fap"), nested(space.configuration(1))).objective_options["consistency_weight"] == weight
    )
