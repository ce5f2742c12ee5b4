"""The registered methods: names, aliases and where their recipes lie. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from apd_bench.methods.tables import read_toml
from apd_bench.resources import baselines_path

BUILTIN = ("zero_shot", "advtp", "apd")


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One method: a recipe file (and a preset in it), or another method with some tables changed.

    `recipe` is the path of a `recipe.toml`, `preset` the name of one of its `[presets.NAME]` tables. A plug-in may
    instead start from the method called `base` and give `changes`, tables of the same layout; `code` is the file that
    defines its learner or objective, and `digest` the digest of that file, which is part of the method's identity.
    """

    name: str
    aliases: tuple[str, ...] = ()
    title: str = ""
    paper: str = ""
    recipe: str | None = None
    preset: str | None = None
    base: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None
    digest: str | None = None


def builtin() -> Iterator[MethodEntry]:
    """The methods of `baselines/`, each followed by its presets (`apd`, `apd.rslad`, ...)."""
    for name in BUILTIN:
        yield from entries_of(name, str(baselines_path(name, "recipe.toml")))


def entries_of(name: str, path: str) -> Iterator[MethodEntry]:
    """The method `name` in the recipe file `path`, and one entry `NAME.PRESET` for each of its presets."""
    table = read_toml(path)
    about = table.get("method", {})
    paper = str(about.get("paper", ""))
    yield MethodEntry(
        name=name, aliases=tuple(about.get("aliases", ())), title=str(about.get("title", "")), paper=paper, recipe=path
    )
    for preset, changes in table.get("presets", {}).items():
        yield MethodEntry(
            name=f"{name}.{preset}",
            aliases=tuple(changes.get("aliases", ())),
            title=str(changes.get("title", "")),
            paper=str(changes.get("paper", paper)),
            recipe=path,
            preset=preset,
        )


def resolve(name: str) -> MethodEntry | None:
    """The method behind `path/to/file.py:NAME`, else None; raises UsageError when the file has no such method."""
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py"):
        return None
    from apd_bench.methods.plugins import method_in_file

    return method_in_file(file, attribute)
