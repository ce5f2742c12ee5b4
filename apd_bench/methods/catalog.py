"""The registered methods: names, aliases and where their recipes lie. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apd_bench.errors import CorruptFile
from apd_bench.methods.tables import read_toml
from apd_bench.prompts.catalog import LEARNERS
from apd_bench.resources import baselines_path

STATE_CARD = "card.json"
OBJECTIVES: dict[str, str] = {
    "clean": "apd_bench.methods.clean:CleanCrossEntropy",
    "adversarial": "apd_bench.methods.adversarial:AdversarialCrossEntropy",
    "mixed": "apd_bench.methods.ce_mix:MixedCrossEntropy",
    "distillation": "apd_bench.methods.apd:Distillation",
    "consistency": "apd_bench.methods.fap:ConsistencyWithDifference",
    "prompt_attack": "apd_bench.methods.advtp:PromptAttack",
    "feature_bank": "apd_bench.methods.advpt:FeatureBank",
}
BUILTIN = (
    "zero_shot",
    "coop",
    "vpt",
    "vlp",
    "maple",
    "advvp",
    "advtp",
    "advpt",
    "advvlp",
    "advmaple",
    "ce_mix",
    "fap",
    "apd",
)


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One method: a recipe file (and a preset in it), or another method with some tables changed.

    `recipe` is the path of a `recipe.toml`, `preset` the name of one of its `[presets.NAME]` tables. A plug-in may
    instead start from the method called `base` and give `changes`, tables of the same layout; `digest` is that of the
    files that define its learner and objective, or of the prompt state in the folder `state`. `written` marks changes
    that stand in the method's name: a suite does not override them.
    """

    name: str
    aliases: tuple[str, ...] = ()
    title: str = ""
    paper: str = ""
    recipe: str | None = None
    preset: str | None = None
    base: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    state: str | None = None
    digest: str | None = None
    written: bool = False


def builtin() -> Iterator[MethodEntry]:
    """The methods of `baselines/`, each followed by its presets (`apd`, `apd.rslad`, ...)."""
    for name in BUILTIN:
        yield from entries_of(name, str(baselines_path(name, "recipe.toml")))


def entries_of(name: str, path: str) -> Iterator[MethodEntry]:
    """The method `name` in the recipe file `path`, and one entry `NAME.PRESET` for each of its presets."""
    table = read_toml(path)
    about = table.get("method", {})
    aliases = tuple(about.get("aliases", ()))
    paper = str(about.get("paper", ""))
    yield MethodEntry(name=name, aliases=aliases, title=str(about.get("title", "")), paper=paper, recipe=path)
    for preset, changes in table.get("presets", {}).items():
        yield MethodEntry(
            name=f"{name}.{preset}",
            aliases=(*(f"{alias}.{preset}" for alias in aliases), *changes.get("aliases", ())),
            title=str(changes.get("title", "")),
            paper=str(changes.get("paper", paper)),
            recipe=path,
            preset=preset,
        )


def resolve(name: str) -> MethodEntry | None:
    """The method behind a name that the catalog does not list, else None; UsageError when it cannot be made.

    `NAME(option=value)` is a method with options changed, and a folder with a prompt state (imported, or a fit of a
    store) is a method that is evaluated without training.
    """
    if name.endswith(")"):
        from apd_bench.methods.variants import variant

        return variant(name)
    folder = Path(name).expanduser()
    return _trained(folder) if (folder / STATE_CARD).is_file() else None


def _trained(folder: Path) -> MethodEntry:
    """A prompt state as a method: its learner as it stands on the card, and nothing to train."""
    try:
        card = json.loads((folder / STATE_CARD).read_text(encoding="utf-8"))
        recipe, digest = card["recipe"], str(card["digest"])
        learner = {"kind": str(recipe["learner"]), **recipe["learner_options"]}
        code = "" if learner["kind"] in LEARNERS else f"+{recipe['digest']}"
        title, paper, name = str(recipe["title"]), str(recipe["paper"]), str(card["method"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"'{folder}' is not a prompt state: {type(error).__name__}: {error}.") from error
    return MethodEntry(
        name=f"{name}@{digest[:8]}",
        title=f"{title}, as trained",
        paper=paper,
        changes={"learner": learner, "sources": {f"learner.{key}": "code: of the prompt state" for key in learner}},
        state=str(folder.resolve()),
        digest=f"{digest}{code}",
    )
