"""What `apd-bench help TOPIC` prints: suite files, environment variables, the columns of boards."""

from textwrap import fill

from apd_bench.core import options

SUITE = """\
extends = "blank"            # a suite by name, or a file beside this one
backbones = ["tiny-clean"]
methods = ["apd", "advtp"]
reference = ["zero_shot"]    # always run for comparison
datasets = ["food", "nature"]
attacks = ["pgd(steps=100)", "autoattack"]
eps = ["1/255", "4/255"]
seeds = [1, 2, 3]
shots = [16]
limit = 200                  # test samples per dataset; leave it out for all

[recipe.training]            # for every method, over its published recipe
epochs = 10

[recipes.apd.objective]      # for one method
temperature = 2.0

[[rules]]                    # for the fits on some datasets or with some shots
datasets = ["food"]
recipe.training.epochs = 20

[options]                    # defaults of options that no number depends on
jobs = 2
"""
_ABOUT_SUITES = """\
A suite is what `run`, `plan` and `fit` start from: a name of `apd-bench list suites`, or a TOML file of yours
(`apd-bench run mine.toml`). Options of the command line replace its lists. `extends = "blank"` begins with nothing
chosen and every method's published recipe, `extends = "embedded"` with the embedded models, sets and budgets.
`apd-bench show SUITE` prints a suite, `apd-bench plan FILE` its cells. A complete file:
"""
_ABOUT_VARIABLES = """\
Every option of `run` is also a variable: the command line wins over it, and it wins over the [options] of a suite.
Switches take 1 or 0. APD_BENCH_DATA=~/data apd-bench run is apd-bench run --data ~/data.
"""
_OTHERS = {
    "APD_BENCH_CACHE": "where decoded images and timings are kept (default: the cache folder of the platform)",
    "HF_HOME, HF_HUB_OFFLINE, TORCH_HOME": "as their libraries read them: where downloaded weights lie",
    "CUDA_VISIBLE_DEVICES": "the GPUs that --device cuda uses",
    "NO_COLOR": "no colours",
}
TOPICS = {
    "suites": "suite files: extends, recipes, rules, options",
    "environment": "the variables APD_BENCH_*",
    "columns": "what the columns of boards mean",
}


def text_of(topic: str, width: int) -> str:
    """The text of one of TOPICS, in lines of at most `width` characters."""
    if topic == "suites":
        return f"{_wrapped(_ABOUT_SUITES, width)}\n\n{SUITE.rstrip()}"
    if topic == "environment":
        items = {item.variable: f"{item.help} ({item.flag})" for item in options.table().values()} | _OTHERS
        return "\n".join([_wrapped(_ABOUT_VARIABLES, width), "", *_listed(items, width)])
    from apd_bench.leaderboard.columns import legend  # numpy
    from apd_bench.leaderboard.wording import ACCURACIES

    columns = dict(line.split(": ", 1) for line in legend("html"))
    return "\n".join([_wrapped(ACCURACIES, width), "", *_listed(columns, width)])


def _wrapped(text: str, width: int) -> str:
    return fill(" ".join(text.split()), width)


def _listed(items: dict[str, str], width: int) -> list[str]:
    """Names, each with its text below it."""
    return [line for name, text in items.items() for line in (name, fill(text, width, initial_indent="    ",
            subsequent_indent="    "))]  # fmt: skip
