"""The text tower: open_clip's modules, walked so that prompts can enter; nothing of CLIP is copied.

Source of the insertion points: CoOp (context replaces word embeddings before the positional embedding) and MaPLe
(deep text prompts replace the same rows at block entry; the causal mask is untouched).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from apd_bench.backbones.blocks import run_block
from apd_bench.backbones.slots import TextPrompts


def place(x: Tensor, values: Tensor, rows: Tensor | None) -> Tensor:
    """`x` [C, L, Wt] with `values` [n, Wt] or [C, n, Wt] at `rows` [C, n] (None: rows 1 .. n)."""
    values = values.expand(len(x), -1, -1)
    if rows is None:
        return torch.cat([x[:, :1], values, x[:, 1 + values.shape[1] :]], dim=1)
    return x.scatter(1, rows.unsqueeze(-1).expand_as(values), values)


@dataclass(frozen=True)
class PlainTextTower:
    """A foreign text tower (Hugging Face, CoCa, bidirectional): called as it is, uncut, without prompts."""

    model: Any

    def __call__(self, tokens: Tensor, text: TextPrompts | None = None) -> Tensor:
        """Token ids [C, L] -> features [C, D]; `text` must be None."""
        features: Tensor = self.model.encode_text(tokens, normalize=False)
        return features


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
        x = holder.ln_final(x[torch.arange(len(x), device=x.device), self._pooled_row(tokens)])
        projection = holder.text_projection
        if projection is None:
            return x
        projected: Tensor = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return projected

    def end(self, tokens: Tensor) -> Tensor:
        """The row [C] of the end token of every text [C, L]."""
        if self.pool_type == "eos":
            return torch.eq(tokens, self.eos_id or 0).int().argmax(dim=-1)
        return tokens.argmax(dim=-1)

    def _pooled_row(self, tokens: Tensor) -> Tensor:
        if self.pool_type in ("first", "last"):
            row = 0 if self.pool_type == "first" else tokens.shape[1] - 1
            return tokens.new_full((len(tokens),), row)
        return self.end(tokens)


def text_tower(model: nn.Module) -> TextTransformer | PlainTextTower:
    """The walker for the text tower of an open_clip model."""
    holder = getattr(model, "text", model)
    if not isinstance(holder, nn.Module) or not TextTransformer.fits(holder):
        return PlainTextTower(model)
    eos_id = getattr(holder, "eos_id", getattr(holder, "text_eos_id", None))
    return TextTransformer(holder, _pool_type(holder), eos_id)


def _pool_type(holder: nn.Module) -> str:
    """How the tower pools; CLIP keeps the names of its built-in text tower with a prefix."""
    return str(getattr(holder, "pool_type", getattr(holder, "text_pool_type", "")))
