"""Prompt checkpoints of the CoOp family (`.pth.tar` as Dassl writes them) as prompt states of this project.

The tensors that a learner learns are taken over; everything that the files hold beside them (the weights of CLIP, the
embeddings of the class names, optimiser and scheduler) is left. Files are read with `weights_only=True`.

| format | learner here | what is read |
|---|---|---|
| `coop`, `apt` | `text` | `ctx` [n, Wt] or class-wise [C, n, Wt] |
| `vpt` | `visual` | `image_encoder.VPT` and `...resblocks.L.VPT_shallow` [n, Wv] |
| `ivlp` | `independent` | both of these for both towers, and `prompt_learner.ctx` |
| `maple` | `coupled` | `ctx`, `proj`, the deep text prompts [n, Wt] and their projections [Wv, Wt] |
| `fap` | `fap` | `ctx`, `proj`, the deep visual prompts [n, Wv] and their projections [Wt, Wv] |

For `maple` and `fap` the lists are recognised by their shapes, whatever their names.
"""

from __future__ import annotations

import dataclasses
import pickle
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, StepLR

from apd_bench.backbones.adapter import Backbone
from apd_bench.errors import CorruptFile, UsageError, unknown_name
from apd_bench.specs import MethodRecipe
from apd_bench.states import PromptState, build_learner, classes_digest, digest_of

# Dassl stores its warm-up scheduler's dict, which holds the inner scheduler and its optimiser as objects.
_HARMLESS: list[Any] = [CosineAnnealingLR, StepLR, MultiStepLR, SGD, Adam, AdamW, defaultdict, dict]
_PLACEHOLDER_CLASSES = ("object",)
_PLACEHOLDER_TEMPLATE = "a photo of a {}."
Tensors = dict[str, Tensor]


def import_prompts(
    path: str | Path,
    format: str,
    backbone: Backbone,
    *,
    classes: Sequence[str] | None = None,
    template: str | None = None,
    position: str = "end",
    init: str | None = None,
) -> PromptState:
    """The prompt state in a checkpoint, ready for `save_state` and `restore`.

    `classes` are the class names it was trained with: needed for class-wise context, a placeholder otherwise (prompts
    are bound to the names of the set they are evaluated on). `init` is the phrase that the context started from; words
    of it beyond the context's length stay in the text, so it matters for `maple` (default "a photo of a") and `fap`
    (default: the template with its braces, as in the released code). Raises CorruptFile when the file holds something
    else, UnknownName for a format that does not exist.
    """
    if format not in FORMATS:
        raise unknown_name("checkpoint format", format, FORMATS, command="apd-bench import --help")
    learner_name, read = FORMATS[format]
    found, options = read(read_tensors(path), init)
    if learner_name in ("text", "independent", "coupled", "fap"):
        options["position"] = position
    names = tuple(classes) if classes is not None else _PLACEHOLDER_CLASSES
    context = found.get("context")
    if context is not None and context.ndim == 3:
        options["class_specific"] = True
        if len(context) != len(names):
            raise UsageError(
                f"'{path}' holds class-wise context for {len(context)} classes; {len(names)} class names were given.",
                hint="Give the set it was trained on with --dataset, or the names with --classes.",
            )
    recipe = MethodRecipe(
        name=f"imported-{format}",
        learner=learner_name,
        objective=None,
        learner_options=options,
        sources={f"learner.{name}": f"code: read from a checkpoint of {format}" for name in options},
        title=f"Prompts imported from a {format} checkpoint",
    )
    learner = build_learner(recipe, backbone, names, template or _PLACEHOLDER_TEMPLATE)
    learner.load(found)
    state = learner.state()
    card = {
        "method": recipe.name,
        "recipe": dataclasses.asdict(recipe) | {"needs": []},
        "backbone": backbone.spec.identity(),
        "classes": list(names),
        "classes_digest": classes_digest(names),
        "template": template or _PLACEHOLDER_TEMPLATE,
        "seed": 0,
        "imported_from": Path(path).name,
        "num_parameters": learner.num_parameters,
        "digest": digest_of(state),
        "collapsed": False,
        "warnings": [],
    }
    return PromptState(state, card)


def read_tensors(path: str | Path) -> Tensors:
    """The tensors of a checkpoint's `state_dict` in float32, names without the prefix of the learner."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(str(path), map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise CorruptFile(
            f"'{path}' cannot be read as a checkpoint of tensors: {str(error).splitlines()[0]}",
            hint="Where you trust its origin, save torch.load(FILE)['state_dict'] alone and import that.",
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise CorruptFile(f"'{path}' holds no state_dict of tensors.")
    return {
        str(name).removeprefix("module.").removeprefix("prompt_learner."): value.to(torch.float32)
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _coop(tensors: Tensors, init: str | None) -> tuple[Tensors, dict[str, Any]]:
    context = _need(tensors, "ctx")
    return {"context": context}, {"tokens": context.shape[-2], "init": init or "random"}


def _vpt(tensors: Tensors, init: str | None) -> tuple[Tensors, dict[str, Any]]:
    tokens = _deep_visual(tensors)
    return {"tokens": tokens}, {"tokens": tokens.shape[1], "depth": len(tokens)}


def _ivlp(tensors: Tensors, init: str | None) -> tuple[Tensors, dict[str, Any]]:
    context, tokens = _need(tensors, "ctx"), _deep_visual(tensors)
    rows = _numbered(tensors, r"text_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow")
    deep = torch.stack(rows) if rows else context.new_empty(0, *context.shape)
    options = {
        "text_tokens": len(context),
        "visual_tokens": tokens.shape[1],
        "text_depth": len(deep) + 1,
        "visual_depth": len(tokens),
        "init": init or "a photo of a",
    }
    return {"context": context, "deep": deep, "tokens": tokens}, options


def _maple(tensors: Tensors, init: str | None) -> tuple[Tensors, dict[str, Any]]:
    context, prompts, found = _coupled(tensors)
    if prompts and prompts[0].shape[1] != context.shape[1]:
        raise CorruptFile("The deep prompts have the image tower's width: this is a checkpoint of fap, not of maple.")
    deep = torch.stack(prompts) if prompts else context.new_empty(0, *context.shape)
    options = {"tokens": len(context), "depth": len(deep) + 1, "init": init or "a photo of a"}
    return {"context": context, "deep": deep, **found}, options


def _fap(tensors: Tensors, init: str | None) -> tuple[Tensors, dict[str, Any]]:
    context, prompts, found = _coupled(tensors)
    visual_width = found["first.weight"].shape[1]
    if prompts and found["further.weight"].shape[1:] != (context.shape[1], visual_width):
        raise CorruptFile("The projections go from text to image: this is a checkpoint of maple, not of fap.")
    deep = torch.stack(prompts) if prompts else context.new_empty(0, len(context), visual_width)
    options = {"tokens": len(context), "depth": len(deep) + 1, "init": init or "template-literal"}
    return {"context": context, "tokens": deep, **found}, options


def _coupled(tensors: Tensors) -> tuple[Tensor, list[Tensor], Tensors]:
    """Context, deep prompts in order, and the projections of the first and of the further layers."""
    context, weight, bias = (_need(tensors, name) for name in ("ctx", "proj.weight", "proj.bias"))
    prompts = _numbered(tensors, r"compound_prompts_\w+\.(\d+)")
    weights = _numbered(tensors, r"\w*proj\w*\.(\d+)\.weight")
    biases = _numbered(tensors, r"\w*proj\w*\.(\d+)\.bias")
    if not len(prompts) == len(weights) == len(biases):
        raise CorruptFile(
            f"The checkpoint has {len(prompts)} deep prompts, {len(weights)} projections and {len(biases)} biases."
        )
    empty = weight.new_empty(0)
    return (
        context,
        prompts,
        {
            "first.weight": weight[None],
            "first.bias": bias[None],
            "further.weight": torch.stack(weights) if weights else empty.view(0, *weight.shape),
            "further.bias": torch.stack(biases) if biases else empty.view(0, *bias.shape),
        },
    )


def _deep_visual(tensors: Tensors) -> Tensor:
    first = _need(tensors, "image_encoder.VPT")
    return torch.stack([first, *_numbered(tensors, r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow")])


def _numbered(tensors: Tensors, pattern: str) -> list[Tensor]:
    """The tensors whose whole name matches, in the order of their number."""
    found = {int(match[1]): value for name, value in tensors.items() if (match := re.fullmatch(pattern, name))}
    return [found[number] for number in sorted(found)]


def _need(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        listing = ", ".join(list(tensors)[:8])
        raise CorruptFile(
            f"The checkpoint has no '{name}'; it has {listing}{', ...' if len(tensors) > 8 else ''}.",
            hint="Is --format the code that wrote it? coop, apt, vpt, ivlp, maple, fap",
        )
    return tensors[name]


FORMATS = {
    "coop": ("text", _coop),
    "apt": ("text", _coop),
    "vpt": ("visual", _vpt),
    "ivlp": ("independent", _ivlp),
    "maple": ("coupled", _maple),
    "fap": ("fap", _fap),
}
