"""What training leaves behind: the learned tensors as safetensors, and a JSON card that says where they come from.

A state holds learnable tensors only. Everything that depends on the class names is rebuilt from them, so the same
state serves other classes (`rebind`).
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from apd_bench.backbones.adapter import Backbone
from apd_bench.core.bounds import parse_json, safetensors_header
from apd_bench.core.errors import CorruptFile, UsageError
from apd_bench.core.files import atomic_write
from apd_bench.core.identity import derive_seed, is_recorded
from apd_bench.core.specs import MethodRecipe
from apd_bench.core.text import json_text
from apd_bench.core.versions import CARD, STATE, refuse_other
from apd_bench.methods.catalog import TENSORS
from apd_bench.methods.classes import load_class
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.base import PromptLearner
from apd_bench.prompts.classifier import Classifier


@dataclass(frozen=True)
class PromptState:
    """The learned tensors (CPU, float32) of one fit and its card."""

    state: dict[str, Tensor]
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The digest of the tensors: names, shapes and values."""
        return digest_of(self.state)

    @property
    def recipe(self) -> MethodRecipe:
        """The recipe on the card, of which nothing is ever imported; raises CorruptFile when there is none."""
        names = {item.name for item in dataclasses.fields(MethodRecipe) if is_recorded(item)}
        try:
            given = {name: value for name, value in self.card["recipe"].items() if name in names}
            return MethodRecipe(**given | {"needs": tuple(given.get("needs", ()))})
        except (KeyError, TypeError, AttributeError) as error:
            raise CorruptFile(f"The card holds no recipe: {type(error).__name__}: {error}.") from error


def digest_of(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 over names, shapes and bytes of the tensors, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().to("cpu", torch.float32).contiguous()
        total.update(f"{name}{tuple(tensor.shape)}".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def save_state(folder: str | Path, state: PromptState) -> None:
    """Writes `state` into `folder`, the card last: a folder with a card is complete."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    card = state.card | {"schema": STATE, "digest": state.digest}
    tensors = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in state.state.items()}
    atomic_write(folder / TENSORS, save(tensors))
    atomic_write(folder / CARD, (json_text(card, 1) + "\n").encode())


def has_state(folder: str | Path) -> bool:
    """Whether `folder` holds a complete state."""
    return (Path(folder) / CARD).is_file() and (Path(folder) / TENSORS).is_file()


def load_state(folder: str | Path) -> PromptState:
    """The state in `folder`.

    Raises CorruptFile when it is torn or not what its card says, and OtherSchema when a later apd-bench wrote it.
    """
    folder = Path(folder)
    hint = f"Move '{folder}' aside and run the same command again: a fit of a store is repeated."
    try:
        card = parse_json((folder / CARD).read_bytes(), constants=True)
        if isinstance(card, dict):
            refuse_other(card.get("schema") or STATE, STATE, str(folder / CARD))
        content = (folder / TENSORS).read_bytes()
        safetensors_header(content, len(content))
        tensors = load(content)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CorruptFile(f"The prompt state in '{folder}' cannot be read: {error}.", hint=hint) from error
    if not isinstance(card, dict) or card.get("schema") != STATE:
        raise CorruptFile(f"The card in '{folder}' is not of version {STATE}.", hint=hint)
    state = PromptState(tensors, card)
    if state.digest != card.get("digest"):
        raise CorruptFile(f"The tensors in '{folder}' do not have the digest on their card.", hint=hint)
    return state


def build_learner(
    recipe: MethodRecipe, backbone: Backbone, class_names: Sequence[str], template: str, *, seed: int = 0
) -> PromptLearner:
    """A fresh learner of the recipe's kind; its initial values depend on `seed` alone."""
    kind = load_class("learner", recipe, PromptLearner)
    generator = torch.Generator().manual_seed(derive_seed("init", seed))
    try:
        return kind(backbone, class_names, template, dict(recipe.learner_options), generator)
    except TypeError as error:
        raise UsageError(f"The learner '{recipe.learner}' of '{recipe.name}' cannot be built: {error}.") from error


def zero_shot(backbone: Backbone, class_names: Sequence[str], template: str, *, precision: str = "fp32") -> Classifier:
    """The model itself on these classes, with the hand-made template."""
    learner = build_learner(load_recipe("zero_shot"), backbone, class_names, template)
    return Classifier.from_learner(backbone, learner, precision=precision)


def restore(
    state: PromptState, backbone: Backbone, class_names: Sequence[str] | None = None, template: str | None = None
) -> PromptLearner:
    """The learner of a trained state, bound to `class_names` and `template` (those of its training when None)."""
    card = state.card
    learner = build_learner(state.recipe, backbone, card["classes"], card["template"], seed=int(card.get("seed", 0)))
    learner.load(state.state)
    names = tuple(card["classes"]) if class_names is None else tuple(class_names)
    if names != tuple(card["classes"]) or (template is not None and template != card["template"]):
        learner.rebind(names, template)
    return learner
