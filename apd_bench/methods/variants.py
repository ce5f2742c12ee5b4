"""Methods with some options changed, written like a call: `apd(temperature=2, inner_loss="kl")`. Imports no torch."""

from dataclasses import replace
from typing import Any

from apd_bench.core.errors import UsageError, unknown_name
from apd_bench.core.identity import canonical
from apd_bench.core.registry import METHODS
from apd_bench.core.specs import parse_call
from apd_bench.methods.entry import MethodEntry
from apd_bench.methods.recipes import tables_of
from apd_bench.methods.tables import DEFAULTS, check_kind

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
    known = {section: sorted({*table[section], *DEFAULTS.get(section, ())} - {"kind"}) for section in table}
    meanings: dict[str, tuple[str, str]] = {}  # of every way to write an option, the shortest first
    for prefix, section in (*(("", section) for section in PLAIN), *PREFIXES.items()):
        for key in known.get(section, ()):
            meanings.setdefault(prefix + key, (section, key))
    shortest = {meaning: written for written, meaning in reversed(meanings.items())}
    changes: dict[str, dict[str, Any]] = {}
    shown: dict[str, Any] = {}
    for option, value in options.items():
        if not meanings:
            raise UsageError(f"'{entry.name}' has no options.")
        if option not in meanings:
            raise unknown_name(
                f"option of '{entry.name}'", option, shortest.values(), command=f"apd-bench show {entry.name}"
            )
        section, key = meanings[option]
        check_kind(option, value, table[section].get(key))
        if canonical(table[section].get(key)) != canonical(value):
            changes.setdefault(section, {})[key] = value
            shown[shortest[section, key]] = canonical(value)
    if not changes:
        return entry
    inner = ", ".join(f"{option}={value!r}" for option, value in sorted(shown.items()))
    sources = {
        f"{section}.{key}": "variant: written in the method's name" for section in changes for key in changes[section]
    }
    return replace(
        entry,
        name=f"{entry.name}({inner})",
        title=f"{entry.title} [{inner}]",
        aliases=(),
        recipe=None,
        preset=None,
        base=entry.name,
        changes={**changes, "sources": sources},
        written=True,
    )
