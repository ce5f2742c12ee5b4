"""What the registry holds of a method. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One method: a recipe file (and a preset in it), or another method with some tables changed.

    `recipe` is the path of a `recipe.toml`, `preset` the name of one of its `[presets.NAME]` tables. A plug-in may
    instead start from the method called `base` and give `changes`, tables of the same layout; `digest` is that of the
    files that define its learner and objective, or of the prompt state in the folder `state`. `written` marks changes
    that stand in the method's name: a suite does not override them. `venue` (with the year) and `url` are those of the
    paper, for people. `reconstruction`: see `MethodRecipe`.
    """

    name: str
    aliases: tuple[str, ...] = ()
    title: str = ""
    paper: str = ""
    venue: str = ""
    url: str = ""
    recipe: str | None = None
    preset: str | None = None
    base: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    state: str | None = None
    digest: str | None = None
    written: bool = False
    reconstruction: bool = False
