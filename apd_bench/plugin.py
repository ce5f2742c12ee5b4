"""Everything that a plug-in is written with, under one name each; CONTRIBUTING has a complete example of every kind.

Shapes: B batch, C classes, L tokens, n prompt length, d prompt depth, D joint embedding, Wv and Wt the tower widths.
Each name is documented where it is defined (`help(apd_bench.plugin.Search)`) and imported when it is first used, so a
file with nothing but a `DatasetSpec` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apd_bench.attacks.catalog import AttackEntry as AttackEntry
    from apd_bench.attacks.losses import margin as margin
    from apd_bench.attacks.losses import stable_ce as stable_ce
    from apd_bench.attacks.search import Search as Search
    from apd_bench.backbones.adapter import Backbone as Backbone
    from apd_bench.backbones.load import load_backbone as load_backbone
    from apd_bench.backbones.slots import Prompts as Prompts
    from apd_bench.backbones.slots import TextPrompts as TextPrompts
    from apd_bench.backbones.slots import VisualPrompts as VisualPrompts
    from apd_bench.core.specs import BackboneSpec as BackboneSpec
    from apd_bench.core.specs import DatasetSpec as DatasetSpec
    from apd_bench.data.splits import ImageSplit as ImageSplit
    from apd_bench.data.splits import LoadedDataset as LoadedDataset
    from apd_bench.defences.base import Defence as Defence
    from apd_bench.defences.catalog import DefenceEntry as DefenceEntry
    from apd_bench.methods.objective import Adversary as Adversary
    from apd_bench.methods.objective import Batch as Batch
    from apd_bench.methods.objective import Objective as Objective
    from apd_bench.methods.objective import Predictor as Predictor
    from apd_bench.methods.objective import Setting as Setting
    from apd_bench.methods.objective import Terms as Terms
    from apd_bench.methods.objective import cross_entropy as cross_entropy
    from apd_bench.methods.objective import kl as kl
    from apd_bench.methods.objective import probabilities as probabilities
    from apd_bench.methods.plugins import define as define
    from apd_bench.prompts.base import PromptLearner as PromptLearner
    from apd_bench.prompts.base import normal as normal
    from apd_bench.prompts.base import whole as whole

_MODULES = {
    "attacks.catalog": ("AttackEntry",),
    "attacks.losses": ("margin", "stable_ce"),
    "attacks.search": ("Search",),
    "backbones.adapter": ("Backbone",),
    "backbones.load": ("load_backbone",),
    "backbones.slots": ("Prompts", "TextPrompts", "VisualPrompts"),
    "core.specs": ("BackboneSpec", "DatasetSpec"),
    "data.splits": ("ImageSplit", "LoadedDataset"),
    "defences.base": ("Defence",),
    "defences.catalog": ("DefenceEntry",),
    "methods.objective": (
        "Adversary", "Batch", "Objective", "Predictor", "Setting", "Terms", "cross_entropy", "kl", "probabilities",
    ),
    "methods.plugins": ("define",),
    "prompts.base": ("PromptLearner", "normal", "whole"),
}  # fmt: skip
_WHERE = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    """Imports the module of a public name on its first use."""
    if name in _WHERE:
        return getattr(import_module(f"apd_bench.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'apd_bench.plugin' has no attribute '{name}'")
