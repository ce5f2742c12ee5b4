"""`define`: a method from outside the package, as an entry of the registry. Imports no torch."""

from collections.abc import Iterable, Mapping
from typing import Any

from apd_bench.core.errors import unknown_name
from apd_bench.methods.classes import name_of
from apd_bench.methods.entry import MethodEntry

_TABLES = ("learner_options", "objective_options", "inner_attack", "training", "sources")


def define(
    name: str,
    *,
    base: str | None = None,
    learner: type | str | None = None,
    objective: type | str | None = None,
    aliases: Iterable[str] = (),
    title: str = "",
    paper: str = "",
    venue: str = "",
    url: str = "",
    **tables: Mapping[str, Any],
) -> MethodEntry:
    """A method of your own: a learner and an objective (classes or names), and what its recipe says.

    `venue` (such as "ICLR 2026") and `url` are those of the paper.
    `base` is a registered method whose recipe is the starting point, so that only the difference is written down.
    `tables` are the sections of a recipe: `training={"epochs": 5}`, `objective_options={...}`, `learner_options={...}`,
    `inner_attack={...}`, `sources={...}`. Raises UsageError for a class with the name of one of this package.
    """
    for table in tables:
        if table not in _TABLES:
            raise unknown_name("recipe section", table, _TABLES)
    changes: dict[str, Any] = {section: dict(tables[section]) for section in _TABLES[2:] if section in tables}
    digests: list[str] = []
    for section, given in (("learner", learner), ("objective", objective)):
        options = dict(tables.get(f"{section}_options", {}))
        if given is not None:
            kind, digest = name_of(section, given)
            options = {"kind": kind} | options
            digests += [digest] if digest else []
        if options:
            changes[section] = options
    return MethodEntry(
        name=name,
        aliases=tuple(aliases),
        title=title or name,
        paper=paper,
        venue=venue,
        url=url,
        base=base,
        changes=changes,
        digest="+".join(dict.fromkeys(digests)) or None,
    )
