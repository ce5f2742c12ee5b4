"""The registered methods: names, aliases and where their recipes lie. Imports no torch."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apd_bench.backbones.hub import forbid_network, hub_file
from apd_bench.core.errors import CorruptFile, UnknownName, UsageError
from apd_bench.core.files import is_path, typed_file
from apd_bench.core.package_data import baselines_path
from apd_bench.core.versions import CARD
from apd_bench.methods.entry import MethodEntry
from apd_bench.methods.tables import read_toml
from apd_bench.methods.variants import variant
from apd_bench.prompts.catalog import LEARNERS

BUILTIN = (
    "zero_shot", "coop", "vpt", "vlp", "maple",
    "advvp", "advtp", "advpt", "advvlp", "advmaple", "ce_mix", "fap", "apd",
)  # fmt: skip

HUB = "hf://"  # prompt states on the Hugging Face hub: `hf://ORG/REPO`, or `hf://ORG/REPO@REVISION`
TENSORS = "state.safetensors"


def builtin() -> Iterator[MethodEntry]:
    """The methods of `baselines/`, each followed by its presets (`apd`, `apd.rslad`, ...)."""
    for name in BUILTIN:
        yield from entries_of(name, str(baselines_path(name, "recipe.toml")))


def entries_of(name: str, path: str) -> Iterator[MethodEntry]:
    """The method `name` in the recipe file `path`, and one entry `NAME.PRESET` for each of its presets."""
    table = read_toml(path)
    about = table.get("method", {})
    aliases = tuple(about.get("aliases", ()))
    about_paper = {key: str(about.get(key, "")) for key in ("paper", "venue", "url")}
    shared: dict[str, Any] = {**about_paper, "recipe": path, "reconstruction": about.get("reconstruction") is True}
    yield MethodEntry(name=name, aliases=aliases, title=str(about.get("title", "")), **shared)
    for preset, changes in table.get("presets", {}).items():
        yield MethodEntry(
            name=f"{name}.{preset}",
            aliases=(*(f"{alias}.{preset}" for alias in aliases), *changes.get("aliases", ())),
            title=str(changes.get("title", "")),
            preset=preset,
            **{**shared, "paper": str(changes.get("paper", shared["paper"]))},
        )


def resolve(name: str) -> MethodEntry | None:
    """The method behind a name that the catalog does not list, else None; UsageError when it cannot be made.

    `NAME(option=value)` is a method with options changed, and a folder with a prompt state (imported, or a fit of a
    store), or one on the hub (`hf://ORG/REPO`), is a method that is evaluated without training.
    """
    folder = state_folder(name)
    if folder is not None:
        return _trained(folder)
    if name.endswith(")") and "(" in name:
        return variant(name)
    if is_path(name):
        raise UnknownName(
            f"'{name}' is neither a method nor a folder of imported prompts.",
            hint=f"Import a checkpoint first: apd-bench import {name} --format NAME --backbone NAME.",
        )
    return None


def is_trained(name: str) -> bool:
    """Whether `name` is the path of a prompt state that is there."""
    return typed_file(name, CARD) is not None


def state_folder(name: str) -> Path | None:
    """The folder of the prompt state that `name` is the path of, or its address on the hub; None for another name."""
    if name.startswith(HUB):
        return pull(name)
    return Path(name).expanduser() if is_trained(name) else None


def repository_of(name: str) -> tuple[str, str | None]:
    """Repository and revision; raises UsageError for what does not read as that."""
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if match is None:
        raise UsageError(
            f"'{name}' is no prompt state on the hub.", hint="Write hf://ORG/REPO or hf://ORG/REPO@REVISION."
        )
    return match[1], match[2]


def pull(name: str) -> Path:
    """The folder with the card and the tensors of one commit, from the cache or downloaded; nothing else is fetched.

    Raises MissingPrerequisite for what is not there or cannot be reached.
    """
    forbid_network()
    repository, revision = repository_of(name)
    card = hub_file(repository, (CARD,), revision)
    hub_file(repository, (TENSORS,), card.parent.name)  # the folder of a snapshot is called by its commit
    return card.parent


def _trained(folder: Path) -> MethodEntry:
    """A prompt state as a method: its learner as it stands on the card, and nothing to train."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
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
