"""Both towers: open_clip's modules, walked so that prompts can enter; nothing of CLIP is copied.

Source of the insertion points: CoOp (context replaces word embeddings before the positional embedding), MaPLe (deep
text prompts replace the same rows at block entry; the causal mask is untouched), VPT and MaPLe (visual tokens behind
the positional embedding, before `ln_pre`, after the patches; replaced at block entry up to the prompt depth).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from apd_bench.backbones.blocks import patches_of, run_block
from apd_bench.backbones.slots import TextPrompts


@dataclass(frozen=True)
class ImageTransformer:
    """open_clip's VisionTransformer with class-token or mean pooling and a slot for prompt tokens."""

    visual: Any

    @staticmethod
    def fits(visual: nn.Module) -> bool:
        """Whether the tower is one whose token sequence can be entered."""
        pooled = getattr(visual, "attn_pool", None) is None and getattr(visual, "pool_type", "") in ("tok", "avg")
        transformer = getattr(visual, "transformer", None)
        return hasattr(visual, "class_embedding") and pooled and getattr(transformer, "batch_first", False)

    def __call__(self, pixels: Tensor, tokens: Tensor | None = None, outputs: list[Tensor] | None = None) -> Tensor:
        """Normalised pixels [B, 3, H, W] and prompts [d, n, Wv] or [d, B, n, Wv] -> features [B, D].

        Where only the class token is read afterwards, the last block computes only its row. `outputs` gets what every
        other block gives, [B, 1 + patches + n, Wv].
        """
        visual = self.visual
        x = visual.ln_pre(self._embed(pixels, tokens))
        blocks = visual.transformer.resblocks
        length = 0 if tokens is None else tokens.shape[-2]
        depth = 0 if tokens is None or length == 0 else tokens.shape[0]
        for index, block in enumerate(blocks):
            if tokens is not None and 1 <= index < depth:
                x = torch.cat([x[:, :-length], tokens[index].expand(len(x), -1, -1)], dim=1)
            last = index + 1 == len(blocks)
            x = run_block(block, x, rows=1 if last and visual.pool_type == "tok" else None)
            if outputs is not None and not last:
                outputs.append(x)
        return self._pool(x, length)

    def _embed(self, pixels: Tensor, tokens: Tensor | None) -> Tensor:
        """Class token, patches and prompts [B, 1 + patches + n, Wv]; only the first two have positions."""
        visual = self.visual
        patches = patches_of(visual.conv1, pixels)
        position = visual.positional_embedding
        head = (visual.class_embedding + position[:1]).expand(len(patches), 1, -1)
        parts = [head, patches + position[1:]]
        if tokens is not None:
            parts.append(tokens[0].expand(len(patches), -1, -1))
        return torch.cat(parts, dim=1)

    def _pool(self, x: Tensor, length: int) -> Tensor:
        """Pooled, normalised and projected features [B, D]; prompt positions do not enter a mean.

        Visual prompts see the patches and are seen by them, as in VPT; the pooled mean stays one over patches.
        """
        visual = self.visual
        if visual.pool_type == "tok":
            x = visual.ln_post(x[:, 0])
        else:
            patches = x[:, 1 : x.shape[1] - length]
            x = visual.ln_post(patches.mean(1)) if visual.final_ln_after_pool else visual.ln_post(patches).mean(1)
        return x if visual.proj is None else x @ visual.proj


def image_tower(visual: nn.Module) -> Callable[..., Tensor]:
    """The walker for an image tower."""
    return ImageTransformer(visual) if ImageTransformer.fits(visual) else partial(_plain_image, visual)


def _plain_image(visual: nn.Module, pixels: Tensor) -> Tensor:
    """Features [B, D] of a convolutional, timm or attention-pooled tower: called as it is, without prompts."""
    features = visual(pixels)
    pooled: Tensor = features[0] if isinstance(features, tuple) else features
    return pooled


def cast_products(tower: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a frozen tower with the weights of its products and convolutions in `dtype`; norms stay as they are."""
    twin = copy.deepcopy(tower)
    for module in twin.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.MultiheadAttention)):
            for weight in module.parameters(recurse=False):
                weight.data = weight.data.to(dtype)
    return twin


def has_quick_gelu(model: nn.Module) -> bool:
    """Whether any activation of an open_clip model is QuickGELU."""
    return any(isinstance(module, QuickGELU) for module in model.modules())


def place(x: Tensor, values: Tensor, rows: Tensor | None) -> Tensor:
    """`x` [C, L, Wt] with `values` [n, Wt] or [C, n, Wt] at `rows` [C, n] (None: rows 1 .. n)."""
    values = values.expand(len(x), -1, -1)
    if rows is None:
        return torch.cat([x[:, :1], values, x[:, 1 + values.shape[1] :]], dim=1)
    return x.scatter(1, rows.unsqueeze(-1).expand_as(values), values)


@dataclass(frozen=True)
class TextTransformer:
    """open_clip's text transformer, built into CLIP or standing alone, with slots for prompts."""

    holder: Any
    pool_type: str
    eos_id: int | None

    @staticmethod
    def fits(holder: nn.Module) -> bool:
        """Whether the token sequence can be entered: no class token behind it, no mask that depends on the padding."""
        foreign = getattr(holder, "cls_emb", None) is not None or getattr(holder, "use_pad_mask", False)
        pooled = _pool_type(holder) in ("argmax", "eos", "first", "last")
        native = hasattr(holder, "token_embedding") and getattr(holder.transformer, "batch_first", False)
        return native and pooled and not foreign

    @property
    def cuts(self) -> bool:
        """Whether nothing behind the end token matters: causal attention, and the end token is read."""
        return self.holder.attn_mask is not None and self.pool_type in ("argmax", "eos")

    def __call__(self, tokens: Tensor, text: TextPrompts | None = None) -> Tensor:
        """Token ids [C, L] and prompts -> features [C, D], not normalised."""
        holder = self.holder
        length = tokens.shape[1]
        x: Tensor = holder.token_embedding(tokens)
        if text is not None and text.context is not None:
            x = place(x, text.context, text.rows)
        x = x + holder.positional_embedding[:length]
        mask = None if holder.attn_mask is None else holder.attn_mask[:length, :length]
        deep = None if text is None else text.deep
        for index, block in enumerate(holder.transformer.resblocks):
            if text is not None and deep is not None and 1 <= index <= len(deep):
                x = place(x, deep[index - 1], text.rows)
            x = run_block(block, x, mask)
        if self.pool_type in ("first", "last"):
            row = tokens.new_full((len(tokens),), 0 if self.pool_type == "first" else length - 1)
        else:
            row = self.end(tokens)
        x = holder.ln_final(x[torch.arange(len(x), device=x.device), row])
        projection = holder.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return x

    def end(self, tokens: Tensor) -> Tensor:
        """The row [C] of the end token of every text [C, L]."""
        if self.pool_type == "eos":
            return torch.eq(tokens, self.eos_id or 0).int().argmax(dim=-1)
        return tokens.argmax(dim=-1)


def text_tower(model: Any) -> Callable[..., Tensor]:
    """The walker for the text tower of an open_clip model."""
    holder = getattr(model, "text", model)
    if not isinstance(holder, nn.Module) or not TextTransformer.fits(holder):
        return partial(_plain_text, model)
    eos_id = getattr(holder, "eos_id", getattr(holder, "text_eos_id", None))
    return TextTransformer(holder, _pool_type(holder), eos_id)


def _plain_text(model: Any, tokens: Tensor, text: None = None) -> Tensor:
    """Features [C, D] of a foreign text tower (Hugging Face, CoCa, bidirectional): called as it is, uncut."""
    features: Tensor = model.encode_text(tokens, normalize=False)
    return features


def _pool_type(holder: nn.Module) -> str:
    """How the tower pools; CLIP keeps the names of its built-in text tower with a prefix."""
    return str(getattr(holder, "pool_type", getattr(holder, "text_pool_type", "")))
