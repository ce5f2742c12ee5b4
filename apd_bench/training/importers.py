"""Prompt checkpoints of the CoOp family (`.pth.tar` as Dassl writes them) as prompt states of this project.

Every learned tensor of a file is taken over, or the file is refused with the format that it looks like. What files hold
beside them (the weights of CLIP, which must be those of the backbone, embeddings of class names, optimiser, scheduler)
is left.

| format | learner here | what is read |
|---|---|---|
| `coop` (KgCoOp's, ProGrad's), `apt` | `text` | `ctx` [n, Wt] or class-wise [C, n, Wt] |
| `cocoop` | `conditional` | `ctx` and `meta_net.linear1`, `meta_net.linear2` |
| `vpt` | `visual` | `image_encoder.VPT` and `...resblocks.L.VPT_shallow` [n, Wv]; the text is `a photo of a {}.` |
| `ivlp` (PromptSRC's too) | `independent` | both of these for both towers, and `ctx` |
| | `text`, `visual` | the same where only one tower was prompted |
| `maple` | `coupled` | `ctx`, `proj`, the deep text prompts [n, Wt] and their projections [Wv, Wt] |
| `fap` | `fap` | `ctx`, `proj`, the deep visual prompts [n, Wv] and their projections [Wt, Wv] |

The lists of `maple` and `fap` are told apart by their shapes, since their names are alike.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apd_bench.backbones.adapter import Backbone
from apd_bench.core.errors import CorruptFile, IncompatibleChoice, UsageError, unknown_name
from apd_bench.core.identity import counted, digest
from apd_bench.core.specs import MethodRecipe
from apd_bench.methods.checkpoints import CONTEXT, Learned, read_learned
from apd_bench.training.prompt_states import PromptState, build_learner, digest_of

PLAIN_TEXT = "a photo of a {}."  # of VPT, AdvVPT and vision-only IVLP for every set [MaPLe's trainers/vpt.py]
_PLACEHOLDER_CLASSES = ("object",)
_VISUAL, _DEEP_VISUAL = "image_encoder.VPT", r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow"
_DEEP_TEXT = r"text_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow"
_COMPOUND = r"compound_prompts_\w+\.(\d+)"
_FOREIGN = (  # learned names of codes whose models no learner here can be, and why
    (r"(text|img)_prompt", "RPO, whose read-only prompts need attention masks that no learner here has"),
    (r"VPT_image_trans\..*", "PromptKD, whose image features pass through a learned projector"),
    (r".*lora_.*", "CLIP-LoRA, which changes the weights of CLIP"),
    (r".*adapter.*", "an adapter behind CLIP's features"),
)
_KGCOOP_IDLE = ("bias_vectors", "meta_net.linear1.weight", "meta_net.linear1.bias")  # made, never trained, never used
Read = tuple[str, dict[str, Tensor], dict[str, Any]]  # learner, its state, its options


def import_prompts(
    path: str | Path,
    format: str,
    backbone: Backbone,
    *,
    classes: Sequence[str] | None = None,
    position: str = "end",
    init: str | None = None,
    text: str | None = None,
) -> PromptState:
    """The prompt state in a checkpoint, ready for `save_state` and `restore`.

    `classes` are the class names it was trained with: needed for class-wise context, a placeholder otherwise (prompts
    are bound to the names of the set they are evaluated on). `init` is the phrase that the context started from; words
    of it beyond the context's length stay in the text, so it matters for `maple` and `ivlp` (default "a photo of a")
    and `fap` (default: the template with its braces, as in the released code). `text` is the class text of a file that
    learned none (default: PLAIN_TEXT; empty: the template of each set).

    Raises CorruptFile when the file holds something else or more than the format reads, IncompatibleChoice when it was
    trained on another backbone, UsageError for class names that do not go with it, UnknownName for an unknown format.
    """
    if format not in FORMATS:
        raise unknown_name("checkpoint format", format, FORMATS, command="apd-bench import --help")
    learned = read_learned(Path(path))
    for name, (pattern, what) in product(learned.stored, _FOREIGN):
        if re.fullmatch(pattern, name):
            raise IncompatibleChoice(
                f"'{learned.path}' cannot be imported: '{name}' is of {what}.",
                hint=f"Formats that can: {', '.join(FORMATS)}.",
            )
    try:
        learner_name, state, options = FORMATS[format](learned, init)
        if learned.rest:
            raise CorruptFile(f"'{path}' has learned tensors that '{format}' does not read: {_listing(learned.rest)}.")
    except CorruptFile as error:
        looks = guess(learned)
        if looks is None or looks == format or {looks, format} == {"coop", "apt"}:
            raise
        raise CorruptFile(error.message, hint=f"It looks like {looks}: import it with --format {looks}.") from error
    learned.check_backbone(backbone)
    _check_widths(learned.path, state, backbone)
    options |= _words(learned.path, learner_name, position, init, text)
    names = tuple(classes) if classes is not None else _PLACEHOLDER_CLASSES
    context = state.get("context")
    if context is not None and context.ndim == 3:
        options["class_specific"] = True
        if len(context) != len(names):
            raise _wrong_names(learned.path, len(context), classes)
    remark = ""
    if context is not None:
        remark = learned.check_words(backbone, names if context.ndim == 3 else (), context.shape[-2])
    recipe = MethodRecipe(
        name=f"imported-{format}",
        learner=learner_name,
        objective=None,
        learner_options=options,
        sources={f"learner.{name}": f"code: read from a checkpoint of {format}" for name in options},
        title=f"Prompts imported from a {format} checkpoint",
    )
    learner = build_learner(recipe, backbone, names, PLAIN_TEXT)
    try:
        learner.load(state)
        learner.texts()
    except CorruptFile as error:
        problem = f"'{path}' does not fit '{backbone.spec.name}' as {format}: {error.message.partition(': ')[2]}"
        raise IncompatibleChoice(problem, hint="Give the backbone that it was trained on.") from error
    card = {
        "method": recipe.name,
        "recipe": dataclasses.asdict(recipe) | {"needs": []},
        "backbone": counted(backbone.spec),
        "classes": list(names),
        "classes_digest": digest(list(names)),
        "template": PLAIN_TEXT,
        "seed": 0,
        "imported_from": Path(path).name,
        "num_parameters": learner.num_parameters,
        "digest": digest_of(learner.state()),
        "collapsed": False,
        "warnings": [remark] if remark else [],
    }
    return PromptState(learner.state(), card)


def _words(path: Path, learner: str, position: str, init: str | None, text: str | None) -> dict[str, str]:
    """The options that say how the class texts read; UsageError for one that this learner does not hear."""
    if learner == "visual":
        unheard = "--init" if init is not None else "--position" if position != "end" else None
    else:
        unheard = "--text" if text is not None else None
    if unheard is not None:
        learned = "no text" if learner == "visual" else "its text"
        raise UsageError(f"{unheard} means nothing for '{path}', which has learned {learned}.", hint="Leave it out.")
    return {"text": PLAIN_TEXT if text is None else text} if learner == "visual" else {"position": position}


def guess(learned: Learned) -> str | None:
    """The format that a file looks like by the names in it; None where it looks like none."""
    names = learned.stored
    if "meta_net.linear2.weight" in names:
        return "cocoop"
    if "proj.weight" in names and CONTEXT in names:
        prompts = [name for name in names if re.fullmatch(_COMPOUND, name)]
        width = names[CONTEXT].shape[-1]
        towers_differ = width != names["proj.weight"].shape[0]
        text = "text" in prompts[0] if prompts and not towers_differ else True
        return "maple" if not prompts or (text and names[prompts[0]].shape[-1] == width) else "fap"
    if _VISUAL in names:
        return "ivlp" if CONTEXT in names else "vpt"
    if CONTEXT not in names:
        return None
    return "ivlp" if any(re.fullmatch(_DEEP_TEXT, name) for name in names) else "coop"


def _coop(learned: Learned, init: str | None) -> Read:
    context = learned.take(CONTEXT, 2, 3)
    if context.ndim == 3 and learned.texts not in (None, len(context)):
        raise IncompatibleChoice(
            f"'{learned.path}' holds {len(context)} contexts for {learned.texts} class texts, so that all classes "
            "share them, as in PLOT or ProDA; no learner here has several contexts.",
            hint="Class-wise context has one for each class text.",
        )
    if "bias_vectors" in learned.stored:
        learned.rest = [name for name in learned.rest if name not in _KGCOOP_IDLE]
    return "text", {"context": context}, {"tokens": context.shape[-2], "init": init or "random"}


def _cocoop(learned: Learned, init: str | None) -> Read:
    state = {"context": learned.take(CONTEXT, 2)}
    for ours, theirs in (("down", "linear1"), ("up", "linear2")):
        state[f"{ours}.weight"] = learned.take(f"meta_net.{theirs}.weight", 2)[None]
        state[f"{ours}.bias"] = learned.take(f"meta_net.{theirs}.bias", 1)[None]
    options = {"tokens": len(state["context"]), "init": init or "random", "hidden": state["down.bias"].shape[1]}
    return "conditional", state, options


def _vpt(learned: Learned, init: str | None) -> Read:
    first = learned.take(_VISUAL, 2)
    tokens = torch.stack([first, *learned.numbered(_DEEP_VISUAL, 1, first)])
    return "visual", {"tokens": tokens}, {"tokens": tokens.shape[1], "depth": len(tokens)}


def _ivlp(learned: Learned, init: str | None) -> Read:
    if CONTEXT not in learned.stored:
        return _vpt(learned, init)
    context = learned.take(CONTEXT, 2)
    rows = learned.numbered(_DEEP_TEXT, 1, context)
    deep = torch.stack(rows) if rows else context.new_empty(0, *context.shape)
    phrase = init or "a photo of a"
    if _VISUAL not in learned.stored:
        state = {"context": context} | ({"deep": deep} if rows else {})
        return "text", state, {"tokens": len(context), "depth": len(rows) + 1, "init": phrase}
    _, visual, _ = _vpt(learned, init)
    options = {
        "text_tokens": len(context),
        "visual_tokens": visual["tokens"].shape[1],
        "text_depth": len(rows) + 1,
        "visual_depth": len(visual["tokens"]),
        "init": phrase,
    }
    return "independent", {"context": context, "deep": deep, **visual}, options


def _coupled(learned: Learned, format: str, learner: str, deep: str, init: str) -> Read:
    """Context, the prompts of the blocks behind the first under the name `deep`, and the projections of all blocks."""
    context, weight = (learned.take(name, 2) for name in (CONTEXT, "proj.weight"))
    bias = learned.take("proj.bias", 1)
    prompts = learned.numbered(_COMPOUND, 0)
    weights = learned.numbered(r"\w*proj\w*\.(\d+)\.weight", 0)
    biases = learned.numbered(r"\w*proj\w*\.(\d+)\.bias", 0)
    if not len(prompts) == len(weights) == len(biases):
        raise CorruptFile(
            f"The checkpoint has {len(prompts)} deep prompts, {len(weights)} projections and {len(biases)} biases."
        )
    if prompts and guess(learned) != format:
        raise CorruptFile(f"The deep prompts and projections in '{learned.path}' are not those of {format}.")
    width = context.shape[-1] if format == "maple" else len(weight)
    state = {
        "context": context,
        deep: torch.stack(prompts) if prompts else context.new_empty(0, len(context), width),
        "first.weight": weight[None],
        "first.bias": bias[None],
        "further.weight": torch.stack(weights) if weights else weight.new_empty(0, *weight.shape),
        "further.bias": torch.stack(biases) if biases else bias.new_empty(0, *bias.shape),
    }
    return learner, state, {"tokens": len(context), "depth": len(prompts) + 1, "init": init}


def _check_widths(path: Path, state: dict[str, Tensor], backbone: Backbone) -> None:
    """Raises IncompatibleChoice where prompts have another width, or enter more blocks, than the towers."""
    shapes = backbone.shapes
    for name, width, layers, tower in (
        ("context", shapes.text_width, 0, "text"),
        ("deep", shapes.text_width, shapes.text_layers, "text"),
        ("tokens", shapes.visual_width, shapes.visual_layers, "image"),
    ):
        value = state.get(name)
        if value is None or not value.numel() or not width:
            continue
        problem = f"vectors of {value.shape[-1]} numbers; the {tower} tower of '{backbone.spec.name}' has {width}"
        if value.shape[-1] == width:
            if name == "context" or len(value) <= layers:
                continue
            problem = f"prompts for {len(value)} blocks; the {tower} tower of '{backbone.spec.name}' has {layers}"
        raise IncompatibleChoice(f"'{path}' holds {problem}.", hint="Give the backbone that it was trained on.")


def _wrong_names(path: Path, count: int, classes: Sequence[str] | None) -> UsageError:
    if classes is None:
        return UsageError(
            f"'{path}' holds class-wise context for {count} classes, and whose they are does not stand in it.",
            hint="Give the set it was trained on with --dataset NAME, or a file of names with --classes FILE.",
        )
    halves = (len(classes) + 1) // 2, len(classes) // 2
    half = " It may be of one half of a base-to-new split: give the names of that half with --classes FILE."
    return UsageError(
        f"'{path}' holds class-wise context for {count} classes; {len(classes)} class names were given.",
        hint="Names and context go together in label order." + (half if count in halves else ""),
    )


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


FORMATS: dict[str, Callable[[Learned, str | None], Read]] = {
    "coop": _coop,
    "apt": _coop,
    "cocoop": _cocoop,
    "vpt": _vpt,
    "ivlp": _ivlp,
    "maple": lambda learned, init: _coupled(learned, "maple", "coupled", "deep", init or "a photo of a"),
    "fap": lambda learned, init: _coupled(learned, "fap", "fap", "tokens", init or "template-literal"),
}
