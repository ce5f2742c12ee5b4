"""From a suite to the fits and cells of a search: the same number of tries for every method, never on test images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from apd_bench.core.errors import UsageError
from apd_bench.core.options import RunOptions
from apd_bench.core.registry import DATASETS, METHODS
from apd_bench.core.specs import Suite
from apd_bench.methods.recipes import load_recipe
from apd_bench.runner.plan import Plan, plan
from apd_bench.runner.selection import resolve, split_list
from apd_bench.suites import merge_tables
from apd_bench.tuning.space import has_space, nested, space_of

ATTACK = "worst.fast"
LIMIT = 100
SPLITS = ("val", "held_out")


@dataclass(frozen=True)
class Search:
    """A resolved suite of one budget, one attack and one number of shots, whose methods get `trials` tries each."""

    suite: Suite
    trials: int

    def plans(self, trial: int) -> Iterator[Plan]:
        """The cells of try number `trial` of all methods, one plan for each split that is scored."""
        tables = {name: nested(space_of(name).configuration(trial)) for name in self.suite.methods}
        suite = self.suite.with_options(recipes=merge_tables(self.suite.recipes, tables))
        for split in SPLITS:
            datasets = tuple(name for name in suite.datasets if split_of(name, suite.limit) == split)
            if datasets:
                yield untested(plan(suite.with_options(datasets=datasets, split=split)))


def search(suite: Suite, options: RunOptions, trials: int) -> Search:
    """The search over what `options` lay over `suite`; raises UsageError for what makes no fair choice.

    Where nothing is said, all methods with a space take part, and `worst.fast` attacks 100 images a set at the budget
    of training.
    """
    if any(text.partition("=")[0].strip() == "split" for text in options.settings):
        raise UsageError(
            "The split of a search is not for choice: it is scored on validation images, never on test images.",
            hint="Leave out --set split=....",
        )
    methods = tunable(split_list(options.methods or "all"))
    resolved = resolve(
        suite,
        replace(
            options, methods=methods, attacks=options.attacks or (ATTACK,), no_reference=True,
            limit=LIMIT if options.limit is None else options.limit,
        ),
    )  # fmt: skip
    budgets = resolved.eps if resolved.train_eps is None else (resolved.train_eps,)
    for what, items, example in (
        ("budget", budgets, "--eps 3/255"), ("attack", resolved.attacks, f"--attacks {ATTACK}"),
        ("number of shots", resolved.shots, "--shots 16"), ("backbone", resolved.backbones, "--backbone tiny-clean"),
    ):  # fmt: skip
        if len(items) > 1:
            raise UsageError(f"A search has one {what}, and {len(items)} are asked for.", hint=f"Write {example}.")
    return Search(resolved.with_options(eps=budgets, split="val"), trials)


def tunable(patterns: Iterable[str]) -> tuple[str, ...]:
    """The methods behind names and wildcards; `all` are those that train and say what may vary, without presets.

    Raises UserError for a method that has nothing to choose.
    """
    wanted = list(patterns)
    known = [entry.name for entry in METHODS if not entry.preset and not entry.written and has_space(entry.name)]
    wild = any(name == "all" or name.startswith("!") or "*" in name for name in wanted)
    names = METHODS.select(wanted, universe=known if wild else None)
    for name in names:
        if not load_recipe(name).trains:
            raise UsageError(
                f"'{name}' learns nothing, so there is nothing to tune.", hint="Leave it out of --methods."
            )
        space_of(name)
    return tuple(names)


def split_of(dataset: str, limit: int | None) -> str:
    """Where a set is scored: on `val` where it has as many images as are wanted, else on `held_out`."""
    images = DATASETS.get(dataset).counts.get("val", 0)
    return "val" if images >= (limit or 1) else "held_out"


def untested(grid: Plan) -> Plan:
    """`grid`, if all of it can be measured and nothing of it on test images; raises UsageError else."""
    for item in grid.impossible:
        raise UsageError(
            f"All methods get the same tries on the same sets, and one cannot be made: {item.reason}.",
            hint="Leave the method or the set out.",
        )
    wrong = next((cell for cell in grid.cells if cell.split == "test"), None)
    if wrong is not None:
        raise UsageError(f"A search never looks at test images, and this cell would: {wrong.label}.")
    return grid
