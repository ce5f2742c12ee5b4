"""Methods with some options changed, written like a call: `apd(temperature=2, inner_loss="kl")`. Imports no torch."""

from __future__ import annotations

from typing import Any

from apd_bench.core.errors import UsageError, unknown_name
from apd_bench.core.identity import canonical
from apd_bench.core.registry import METHODS
from apd_bench.core.specs import parse_call
from apd_bench.methods.entry import MethodEntry
from apd_bench.methods.recipes import tables_of
from apd_bench.methods.tables import INNER_ATTACK, SECTIONS, TRAINING

PLAIN = ("objective", "learner", "training")
PREFIXES = {"inner_": "inner_attack", "learner_": "learner", "training_": "training", "objective_": "objective"}


def variant(text: str) -> MethodEntry:
    """The method `NAME(option=value, ...)`: NAME with these options of its recipe set.

    An option is looked for in the objective, the learner and the training, in this order; `learner_`, `training_` or
    `objective_` before it says which one is meant, and options of the inner attack always begin with `inner_`. Options
    equal to the recipe's are dropped, so that one method has one name. Raises UnknownName for an option that the method
    does not have.
    """
    name, options = parse_call(text)
    entry: MethodEntry = METHODS.get(name)
    table, _ = tables_of(entry)
    changes: dict[str, dict[str, Any]] = {}
    shown: dict[str, Any] = {}
    for option, value in options.items():
        section, key = _place(entry.name, option, table)
        if canonical(table[section].get(key)) != canonical(value):
            changes.setdefault(section, {})[key] = value
            shown[_shortest(section, key, table)] = canonical(value)
    if not changes:
        return entry
    inner = ", ".join(f"{option}={value!r}" for option, value in sorted(shown.items()))
    sources = {
        f"{section}.{key}": "variant: written in the method's name" for section in changes for key in changes[section]
    }
    return MethodEntry(
        name=f"{entry.name}({inner})",
        title=f"{entry.title} [{inner}]",
        paper=entry.paper,
        base=entry.name,
        changes={**changes, "sources": sources},
        state=entry.state,
        digest=entry.digest,
        written=True,
    )


def _options(section: str, table: dict[str, Any]) -> set[str]:
    """What may be set in a section of this method."""
    if section not in table:
        return set()
    known = set(table[section]) - {"kind"}
    return known | set({"training": TRAINING, "inner_attack": INNER_ATTACK}.get(section, {}))


def _place(method: str, option: str, table: dict[str, Any]) -> tuple[str, str]:
    for section in PLAIN:
        if option in _options(section, table):
            return section, option
    for prefix, section in PREFIXES.items():
        key = option.removeprefix(prefix)
        if key != option and key in _options(section, table):
            return section, key
    known = {_shortest(section, key, table) for section in SECTIONS for key in _options(section, table)}
    if not known:
        raise UsageError(f"'{method}' has no options.")
    raise unknown_name(f"option of '{method}'", option, known, command=f"apd-bench show {method}")


def _shortest(section: str, key: str, table: dict[str, Any]) -> str:
    """The shortest way to write an option of a section that means this one."""
    for other in PLAIN:
        if key in _options(other, table):
            if other == section:
                return key
            break
    return next(prefix for prefix, place in PREFIXES.items() if place == section) + key
