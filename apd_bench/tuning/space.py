"""What a search may vary: `space.toml` beside a method's recipe, and the draws of its tries.

[shared] names hyper-parameters of `baselines/space.toml`, which have one distribution and the same draws in every
method; [own] holds the weights of the method's own loss, [presets.NAME] those that a preset adds:

    [shared]
    "training.lr" = "lr"

    [own."objective.consistency_weight"]
    log_uniform = [0.3, 8.0]
    why = "a fifth to five times the paper's"
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apd_bench.core.errors import CorruptFile, MissingPrerequisite, unknown_name
from apd_bench.core.identity import derive_seed
from apd_bench.core.package_data import baselines_path
from apd_bench.core.registry import METHODS
from apd_bench.methods.entry import MethodEntry
from apd_bench.methods.recipes import tables_of
from apd_bench.methods.tables import INNER_ATTACK, SECTIONS, TRAINING, read_toml

KINDS = ("choice", "uniform", "log_uniform")
COLUMNS = 32  # of the Sobol sequence: fixed, since its scrambling draws for all of them
OWN_COLUMNS = 16  # the first column of a method's own hyper-parameters; the shared ones stand before it
_DIGITS = 4


@dataclass(frozen=True)
class Distribution:
    """A hyper-parameter's values: `kind` is one of KINDS, `values` the choices or the two ends; `why` gives reasons."""

    kind: str
    values: tuple[Any, ...]
    why: str

    def at(self, u: float) -> Any:
        """The value at the quantile `u` in [0, 1): a number of four digits, or one of the choices."""
        if self.kind == "choice":
            return self.values[int(u * len(self.values))]
        low, high = self.values
        value = low + u * (high - low) if self.kind == "uniform" else low * (high / low) ** u
        return float(f"{value:.{_DIGITS}g}")

    def __str__(self) -> str:
        if self.kind == "choice":
            return " | ".join(map(str, self.values))
        return f"{self.kind.replace('_', '-')} {self.values[0]:g} to {self.values[1]:g}"


@dataclass(frozen=True)
class Space:
    """The hyper-parameters of one method, as dotted options of its recipe: those that it shares, and its own.

    `shared` gives the name of the shared hyper-parameter behind an option.
    """

    method: str
    shared: Mapping[str, str]
    own: Mapping[str, Distribution]

    @property
    def distributions(self) -> dict[str, Distribution]:
        """The distribution of every option."""
        return {**{option: shared_space()[name] for option, name in self.shared.items()}, **self.own}

    def configuration(self, trial: int) -> dict[str, Any]:
        """What try number `trial` sets, by dotted option: nothing in try 0, which is the recipe."""
        if trial == 0:
            return {}
        point, columns = sobol(trial), {name: place for place, name in enumerate(shared_space())}
        own = {option: OWN_COLUMNS + place for place, option in enumerate(self.own)}
        places = {**{option: columns[name] for option, name in self.shared.items()}, **own}
        return {option: how.at(float(point[places[option]])) for option, how in self.distributions.items()}


def nested(configuration: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A configuration as the tables of a recipe."""
    tables: dict[str, dict[str, Any]] = {}
    for option, value in configuration.items():
        section, _, key = option.partition(".")
        tables.setdefault(section, {})[key] = value
    return tables


def sobol(trial: int) -> NDArray[np.float64]:
    """Point number `trial` of the scrambled Sobol sequence of all searches, [COLUMNS] in [0, 1)."""
    point: NDArray[np.float64] = _points(max(trial, 1).bit_length())[trial]
    return point


@cache
def _points(power: int) -> NDArray[np.float64]:
    from scipy.stats import qmc

    engine = qmc.Sobol(COLUMNS, scramble=True, rng=np.random.default_rng(derive_seed("tuning")))
    points: NDArray[np.float64] = engine.random_base2(power)
    return points


@cache
def shared_space() -> dict[str, Distribution]:
    """The hyper-parameters that methods share, by name, in the order of their columns."""
    path = baselines_path("space.toml")
    return {name: _distribution(path, name, table) for name, table in read_toml(path).items()}


def has_space(name: str) -> bool:
    """Whether the registered method `name` says what may vary."""
    path = _path(METHODS.get(name))
    return path is not None and path.is_file()


def space_of(name: str) -> Space:
    """The search space of the method `name`; raises UserError where it has none, or a wrong one."""
    entry = METHODS.get(name)
    path = _path(entry)
    if path is None or not path.is_file():
        raise MissingPrerequisite(
            f"'{entry.name}' does not say what may vary: there is no {path or 'space.toml of it'}.",
            hint="Write one like baselines/fap/space.toml beside its recipe, or leave the method out.",
        )
    return read_space(path, entry)


def read_space(path: Path, entry: MethodEntry) -> Space:
    """The space in the file `path` for the method `entry`; raises CorruptFile or UnknownName for what is wrong."""
    whole = read_toml(path)
    for key in whole:
        if key not in ("shared", "own", "presets"):
            raise unknown_name(f"table of '{path}'", key, ("shared", "own", "presets"))
    shared, own = _table(path, whole, "shared"), _table(path, whole, "own")
    own |= _table(path, _table(path, whole, "presets"), entry.preset or "")
    recipe, _ = tables_of(entry)
    known = _options(recipe)
    for option in (*shared, *own):
        if option not in known:
            raise unknown_name(f"option in '{path}'", option, known, command=f"apd-bench show {entry.name}")
    for option in shared.keys() & own.keys():
        raise CorruptFile(f"'{path}' has '{option}' in [shared] and in [own].", hint="Leave one of them out.")
    for option, name in shared.items():
        if name not in shared_space():
            raise unknown_name(f"shared hyper-parameter of '{option}' in '{path}'", str(name), shared_space())
    if len(own) > COLUMNS - OWN_COLUMNS:
        raise CorruptFile(f"'{path}' has {len(own)} options of its own; at most {COLUMNS - OWN_COLUMNS} are drawn.")
    space = Space(entry.name, shared, {option: _distribution(path, option, table) for option, table in own.items()})
    for option, how in space.distributions.items():
        if any(_kind(value) != _kind(known[option]) for value in how.values):
            raise CorruptFile(
                f"'{option}' in '{path}' is drawn from {how}, but the recipe has {known[option]!r}.",
                hint="Give values of the recipe's type.",
            )
    return space


def _path(entry: MethodEntry) -> Path | None:
    """The file of a method: beside its recipe, or that of the method that it starts from."""
    while entry.recipe is None and entry.base is not None:
        entry = METHODS.get(entry.base)
    return None if entry.recipe is None else Path(entry.recipe).with_name("space.toml")


def _options(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """All that may be set in a recipe, by dotted name, with its value or default."""
    found: dict[str, Any] = {}
    for section in SECTIONS:
        if section in recipe:
            values = {**{"training": TRAINING, "inner_attack": INNER_ATTACK}.get(section, {}), **recipe[section]}
            found |= {f"{section}.{name}": value for name, value in values.items() if name != "kind"}
    return found


def _kind(value: Any) -> str:
    """What sort of value it is, as far as one can stand for the other in a recipe: 1 may be written for 1.0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return type(value).__name__
    return "number"


def _table(path: Path, whole: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = whole.get(key, {})
    if not isinstance(table, Mapping):
        raise CorruptFile(f"'{key}' in '{path}' is a table, not {table!r:.60}.", hint=f"Write [{key}].")
    return dict(table)


def _distribution(path: Path, option: str, table: Any) -> Distribution:
    kinds = [kind for kind in KINDS if isinstance(table, Mapping) and kind in table]
    strange = sorted(set(table) - {*KINDS, "why"}) if isinstance(table, Mapping) else []
    if len(kinds) != 1 or strange:
        said = f"'{strange[0]}'" if strange else f"{len(kinds)} distributions"
        raise CorruptFile(
            f"'{option}' in '{path}' has {said}; a hyper-parameter has a why and one of: {', '.join(KINDS)}.",
            hint='Write uniform = [0.0, 1.0] and why = "...".',
        )
    values, why = table[kinds[0]], table.get("why")
    if not isinstance(why, str) or not why.strip():
        raise CorruptFile(f"'{option}' in '{path}' gives no reason.", hint='Write why = "...".')
    if not isinstance(values, list) or not _sound(kinds[0], values):
        wanted = "a list of two or more values" if kinds[0] == "choice" else "two numbers, the smaller one first"
        above = " and above 0" if kinds[0] == "log_uniform" else ""
        raise CorruptFile(f"{kinds[0]} of '{option}' in '{path}' is {values!r:.60}, not {wanted}{above}.")
    return Distribution(kinds[0], tuple(values), why)


def _sound(kind: str, values: list[Any]) -> bool:
    if kind == "choice":
        return len(values) > 1 and all(isinstance(value, (bool, int, float, str)) for value in values)
    if len(values) != 2 or any(_kind(value) != "number" or not math.isfinite(value) for value in values):
        return False
    return bool(values[0] < values[1] and (kind == "uniform" or values[0] > 0))
