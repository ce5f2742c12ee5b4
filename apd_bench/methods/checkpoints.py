"""The learned tensors in somebody else's checkpoint, apart from what the file holds beside them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.torchfile import StandIn, StoredTensor, leaves, read_safetensors, read_torch
from apd_bench.core.errors import CorruptFile, IncompatibleChoice, UsageError
from apd_bench.core.text import spoken

CONTEXT = "ctx"
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "_orig_mod", "prompt_learner")
_LEFT_OUT = re.compile(r"opt|optim\w*|(\w+_)?(sched\w*|scaler)|rng\w*")  # tables that hold no part of the model
_TENSOR_LIKE = r"torch\._utils\..*|torch\..*Storage|torch\.nn\..*"  # tensors of other kinds, modules
_BUFFERS = re.compile(r"(.*\.)?(token_(prefix|suffix|middle)|tokenized_prompts\w*|normalize\.(mean|std))")
_CLIP = re.compile(  # ZS_: the teacher that PromptSRC saves too, CLIP as it was
    r"logit_scale|(token_embedding|((ZS_)?image|text)_encoder(\.(model|visual))?)\."
    r"(weight|(conv|bn)\d\..+|(layer\d|downsample|attnpool)\..+|class_embedding|positional_embedding|proj"
    r"|text_projection|token_embedding\.weight|ln_(pre|post|final)\..+|transformer\.resblocks\.\d+\.(ln_[12]|attn|mlp)\..+)"
)


class Learned:
    """The learned tensors of a file by name, and the CLIP weights that it may hold too; a tensor is read when taken.

    What was not taken stands in `rest`. `words` are the word embeddings before and behind the context, where
    they were saved, `texts` the number of class texts there.
    """

    def __init__(self, path: Path, state: Mapping[str, StoredTensor | Tensor]) -> None:
        self.path = path
        self.clip = {name: value for name, value in state.items() if _CLIP.fullmatch(name)}
        self.stored = {
            name: value for name, value in state.items() if name not in self.clip and not _BUFFERS.fullmatch(name)
        }
        self.rest = list(self.stored)
        for name, value in self.stored.items():
            if not value.shape:
                raise CorruptFile(f"'{name}' in '{path}' is a single number, which no format has learned.")
        self.words = [state[name] for name in ("token_prefix", "token_suffix") if name in state]
        self.texts = self.words[0].shape[0] if self.words and self.words[0].shape else None

    def take(self, name: str, *ranks: int) -> Tensor:
        """The tensor `name` in float32, which has one of `ranks` dimensions (or any).

        Raises CorruptFile where it is absent, empty, of another rank, not of numbers with a point, or not finite.
        """
        if name not in self.stored:
            listing = ", ".join(list(self.stored)[:6]) or "nothing"
            raise CorruptFile(f"'{self.path}' has no learned tensor '{name}'; it has {listing}.")
        value = _read(self.stored[name])
        if not value.is_floating_point():
            raise CorruptFile(f"'{name}' in '{self.path}' holds whole numbers ({value.dtype}), so it was not learned.")
        if not value.numel() or (ranks and value.ndim not in ranks):
            raise CorruptFile(
                f"'{name}' in '{self.path}' has the shape {[*value.shape]}, not one of "
                f"{' or '.join(map(str, ranks)) or 'any'} dimensions with something in it."
            )
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise CorruptFile(
                f"{bad} of {value.numel()} numbers of '{name}' in '{self.path}' are not finite.",
                hint="The training diverged; take the file of an earlier epoch.",
            )
        if name in self.rest:
            self.rest.remove(name)
        return value.to(torch.float32)

    def numbered(self, pattern: str, first: int, like: Tensor | None = None) -> list[Tensor]:
        """The tensors whose whole name matches, by their number, which must run from `first` without a gap.

        All must have the shape of `like`, or else of the first of them.
        """
        names = {int(match[1]): name for name in self.stored if (match := re.fullmatch(pattern, name))}
        if sorted(names) != list(range(first, first + len(names))):
            raise CorruptFile(f"'{self.path}' has learned tensors of the blocks {sorted(names)}, with a gap.")
        rows = [self.take(names[number]) for number in sorted(names)]
        for row, number in zip(rows, sorted(names), strict=True):
            if row.shape != (wanted := rows[0] if like is None else like).shape:
                raise CorruptFile(
                    f"'{names[number]}' in '{self.path}' has the shape {[*row.shape]}; those before it have "
                    f"{[*wanted.shape]}."
                )
        return rows

    def check_words(self, backbone: Backbone, names: Sequence[str], length: int) -> str:
        """A remark where the start token is not the backbone's, which prompts may be carried to on purpose.

        Raises UsageError for a class name whose embedding behind `length` context vectors is another one in the file.
        """
        if len(self.words) < 2 or any(len(stored.shape) != 3 for stored in self.words):
            return ""
        start, rest = (_read(stored).float() for stored in self.words)
        texts = backbone.tokenize([" ".join(["X"] * length + [f"{spoken(name)}."]) for name in names or ("X",)])
        own = backbone.embed_tokens(texts).cpu()
        if start.shape[-1] != own.shape[-1] or _apart(start[0, 0], own[0, 0]):
            return f"The start token in the file is not that of '{backbone.spec.name}': was it trained on another one?"
        for name, ours, theirs in zip(names, own[:, 1 + length :], rest, strict=False):
            words = min(len(ours), len(theirs))
            if _apart(theirs[:words], ours[:words]):
                raise UsageError(
                    f"'{self.path}' was trained with another name in the place of '{name}'.",
                    hint="Give the names in the order of its labels with --classes FILE.",
                )
        return ""

    def check_backbone(self, backbone: Backbone) -> None:
        """Raises IncompatibleChoice where the CLIP weights in the file are not those of `backbone`."""
        text: Any = getattr(backbone.model, "text", backbone.model)
        own = {f"image_encoder.{name}": value for name, value in backbone.model.visual.state_dict().items()}
        own |= {f"text_encoder.{name}": value for name, value in text.state_dict().items()}
        for name, stored in self.clip.items():
            mine = own.get(name)
            if mine is None:
                continue
            problem = f"is {[*stored.shape]} in the file and {[*mine.shape]} in '{backbone.spec.name}'"
            if mine.shape == torch.Size(stored.shape):
                value = _read(stored)
                exact = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
                if torch.allclose(value.float(), mine.cpu().float(), rtol=2 * exact, atol=1e-6):
                    continue
                problem = f"has other values in the file than in '{backbone.spec.name}'"
            raise IncompatibleChoice(
                f"'{self.path}' was trained on another backbone: '{name}' {problem}.",
                hint="Give the backbone that it was trained on with --backbone.",
            )


def read_learned(path: Path) -> Learned:
    """The tensors of a checkpoint: `.pth.tar` of Dassl, any other file of `torch.save`, or safetensors.

    Tables in tables and the names of wrappers (`state_dict`, `module.`, `prompt_learner.`) are taken off; a bare tensor
    is a context. Raises CorruptFile with one sentence.
    """
    if path.suffix == ".safetensors":
        return Learned(path, _plain(path, read_safetensors(path).items()))
    content = read_torch(path)
    whole = isinstance(content, Mapping) and "state_dict" in content
    if whole:
        content = content["state_dict"]
    elif isinstance(content, Mapping):
        content = {name: value for name, value in content.items() if not _LEFT_OUT.fullmatch(str(name).lower())}
    found = list(leaves(content))
    tensors = [(name, value) for name, value in found if isinstance(value, StoredTensor)]
    for name, value in found:  # beside a state dict, or among tensors, objects are settings and results
        if isinstance(value, StandIn) and (whole or not tensors or re.fullmatch(_TENSOR_LIKE, value.name)):
            where = f"'{name}' in '{path}'" if name else f"'{path}'"
            raise CorruptFile(
                f"{where} is an object of {value.name.partition('.')[0]}, not a plain tensor.",
                hint="Save it again as a tensor: torch.save({'ctx': torch.as_tensor(ARRAY)}, FILE)",
            )
    state = _plain(path, tensors)
    if not state:
        raise CorruptFile(f"'{path}' holds no tensors.", hint="Save model.state_dict() with torch.save.")
    return Learned(path, state)


def _plain(path: Path, state: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """`state` with names that have no wrapper; CorruptFile where two tensors then have one name."""
    plain: dict[str, Any] = {}
    for name, value in state:
        parts = name.split(".")
        while len(parts) > 1 and parts[0] in _WRAPPERS:
            del parts[0]
        short = ".".join(parts) or CONTEXT
        if short in plain:
            raise CorruptFile(f"'{path}' holds two tensors '{short}'.", hint="Save the one that is meant alone.")
        plain[short] = value
    return plain


def _apart(theirs: Tensor, ours: Tensor) -> bool:
    """Whether two embeddings differ by more than half precision makes them."""
    return bool((theirs - ours).norm() > 0.02 * ours.norm())


def _read(stored: StoredTensor | Tensor) -> Tensor:
    return stored.read() if isinstance(stored, StoredTensor) else stored
