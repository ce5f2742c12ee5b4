"""An open_clip model made ready for prompts: the one backbone interface of the package."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from apd_bench.backbones.configs import ALL_OFFERS, DEEP_TEXT, FRAME, TEXT_TOKENS, VISUAL_TOKENS
from apd_bench.backbones.slots import Shapes, TextPrompts, VisualPrompts
from apd_bench.backbones.tokens import PLACEHOLDER, PromptLayout, arrange, check_length, encode_words
from apd_bench.backbones.towers import ImageTransformer, TextTransformer, cast_products, image_tower, text_tower
from apd_bench.core.errors import IncompatibleChoice, UsageError
from apd_bench.core.specs import BackboneSpec
from apd_bench.core.text import spoken

TOKENS_PER_CHUNK = 4096
BackboneT = TypeVar("BackboneT", bound="Backbone")


class Backbone(nn.Module):
    """A frozen image-text model with slots for prompts; in eval mode from construction, whatever `train()` says.

    `mean` and `std` are the image statistics of the weights; callers hand in pixels between 0 and 1. `digest` names
    the weights in records.
    """

    model: Any
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        spec: BackboneSpec,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        digest: str = "",
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.spec = spec
        self.digest = digest
        self.logit_scale = float(self.model.logit_scale.detach().exp())
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = 0.0 if bias is None else float(bias.detach())
        deviation = torch.tensor(std, dtype=torch.float32).view(3, 1, 1)
        self.register_buffer("scale", 1 / deviation, persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).view(3, 1, 1) / deviation, persistent=False)
        self._image = image_tower(self.model.visual)
        self._short: tuple[torch.device, Callable[..., Tensor]] | None = None
        self._text = text_tower(model)
        self.shapes = self._shapes()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.scale.device

    def train(self: BackboneT, mode: bool = True) -> BackboneT:
        """Stays in eval mode: a frozen backbone has no other."""
        return super().train(False)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids [C, L] on the backbone's device, cut at the longest end token; UsageError for a text too long."""
        if hasattr(self.tokenizer, "encode"):
            check_length(self.tokenizer, texts, self.shapes.context_length)
        tokens: Tensor = self.tokenizer(list(texts), context_length=self.shapes.context_length)
        if isinstance(self._text, TextTransformer) and self._text.cuts and len(tokens):
            tokens = tokens[:, : int(self._text.end(tokens).max()) + 1]
        return tokens.to(self.device)

    def embed_words(self, phrase: str) -> Tensor:
        """Word embeddings [n, Wt] of `phrase`, without start and end token."""
        ids = torch.tensor(encode_words(self.tokenizer, phrase), dtype=torch.int64, device=self.device)
        return self.embed_tokens(ids)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Word embeddings [..., Wt] of token ids."""
        embeddings: Tensor = self._text_transformer().holder.token_embedding(tokens)
        return embeddings.detach()

    def prompt_layout(
        self, class_names: Sequence[str], n: int, position: str = "end", prefix: str = "", suffix: str = "."
    ) -> PromptLayout:
        """Token ids of "PREFIX name SUFFIX" with n rows for context vectors at its start.

        `prefix` is filled up with placeholders to n words; what it has beyond n words stays as plain words between
        context and name (with two tokens and "a photo of a": `[v1][v2] of a name.`, as MaPLe has it).
        """
        self._text_transformer()
        missing = n - len(encode_words(self.tokenizer, prefix))
        head = " ".join([prefix] * bool(prefix) + [PLACEHOLDER] * missing)
        texts = [f"{head} {spoken(name)}{suffix}".strip() for name in class_names]
        return arrange(self.tokenizer, self.tokenize(texts), class_names, n, position, head)

    def encode_image(
        self, pixels: Tensor, visual: VisualPrompts | None = None, outputs: list[Tensor] | None = None
    ) -> Tensor:
        """Pixels [B, 3, H, W] in [0, 1] -> image features [B, D], not normalised; an empty batch gives an empty one.

        `outputs` gets what the blocks of a transformer give, but the last, [B, 1 + patches + n, Wv].
        """
        size = self.shapes.image_size
        if pixels.shape[1:] != (3, size, size):
            raise UsageError(f"The backbone '{self.spec.name}' reads [B, 3, {size}, {size}], not {[*pixels.shape]}.")
        if len(pixels) == 0:
            return pixels.flatten(1)[:, :1].expand(-1, self.shapes.embed_dim)
        normalised = torch.addcmul(self.shift, pixels, self.scale)
        if visual is not None and visual.frame is not None:
            normalised = normalised + visual.frame
        tokens = None if visual is None or visual.tokens is None or not visual.tokens.numel() else visual.tokens
        if tokens is None and outputs is None:
            return self._tower()(normalised)
        self._check(VISUAL_TOKENS)
        return self._tower()(normalised, tokens, outputs)

    def _tower(self) -> Callable[..., Tensor]:
        """The image tower; under autocast to bfloat16 one whose weights are cast already, once and for all passes.

        Autocast would cast frozen weights anew in every pass; the numbers are the same bits.
        """
        device = self.device
        if not torch.is_autocast_enabled(device.type) or torch.get_autocast_dtype(device.type) != torch.bfloat16:
            return self._image
        if self._short is None or self._short[0] != device:
            self._short = device, image_tower(cast_products(self.model.visual, torch.bfloat16))
        return self._short[1]

    def encode_text(
        self,
        tokens: Tensor,
        text: TextPrompts | None = None,
        *,
        chunk: int | None = None,
        checkpoint: bool | None = None,
    ) -> Tensor:
        """Token ids [C, L] with prompts -> text features [C, D], not normalised, in chunks of classes.

        `chunk` is the number of classes encoded at once (None: about 4,096 tokens). With `checkpoint` the activations
        of a chunk are recomputed in the backward pass, so memory does not grow with C (None: as soon as there is more
        than one chunk and a gradient is wanted).
        """
        if text is not None:
            self._check(TEXT_TOKENS)
        count = len(tokens)
        size = chunk or max(1, TOKENS_PER_CHUNK // max(1, tokens.shape[1]))
        if count <= size and not checkpoint:
            return self._text(tokens, text)
        again = (checkpoint is None or checkpoint) and torch.is_grad_enabled()
        parts: list[Tensor] = []
        for start in range(0, count, size):
            piece = (tokens[start : start + size], None if text is None else text.classes(start, start + size))
            if again:
                parts.append(recompute(self._text, *piece, use_reentrant=False, preserve_rng_state=False))
            else:
                parts.append(self._text(*piece))
        return torch.cat(parts)

    def _check(self, need: str) -> None:
        if need not in self.shapes.offers:
            raise IncompatibleChoice(
                f"The backbone '{self.spec.name}' takes no {need.replace('_', ' ')}; "
                f"it offers {', '.join(sorted(self.shapes.offers))}."
            )

    def _text_transformer(self) -> TextTransformer:
        self._check(TEXT_TOKENS)
        return cast("TextTransformer", self._text)

    def _shapes(self) -> Shapes:
        visual, found = self.model.visual, {FRAME}
        visual_width = text_width = None
        visual_layers = text_layers = 0
        if isinstance(self._image, ImageTransformer):
            found.add(VISUAL_TOKENS)
            visual_width, visual_layers = int(visual.conv1.out_channels), len(visual.transformer.resblocks)
        if isinstance(self._text, TextTransformer) and hasattr(self.tokenizer, "encode"):
            found |= {TEXT_TOKENS, DEEP_TEXT}
            holder = self._text.holder
            text_width, text_layers = int(holder.token_embedding.embedding_dim), len(holder.transformer.resblocks)
        size = visual.image_size
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        if height != width:
            raise IncompatibleChoice(f"The backbone '{self.spec.name}' reads {height}x{width} images, not square ones.")
        context_length = int(self.model.context_length)
        with torch.no_grad():
            words: Tensor = self.tokenizer([PLACEHOLDER], context_length=context_length)
            probe = self._text(words.to(next(self.model.parameters()).device))
        return Shapes(
            image_size=int(height),
            embed_dim=int(probe.shape[-1]),
            visual_width=visual_width,
            text_width=text_width,
            visual_layers=visual_layers,
            text_layers=text_layers,
            context_length=context_length,
            offers=frozenset(name for name in ALL_OFFERS if name in found),
        )
