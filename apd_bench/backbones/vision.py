"""The image tower: open_clip's modules, walked so that prompts can enter; nothing of CLIP is copied.

Source of the insertion points: deep visual prompt tuning as in VPT and MaPLe (tokens behind the positional embedding,
before `ln_pre`, after the patches; replaced at block entry up to the prompt depth).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from apd_bench.backbones.blocks import patches_of, run_block


@dataclass(frozen=True)
class PlainImageTower:
    """A convolutional, timm or attention-pooled tower: called as it is, without prompts."""

    visual: Any

    def __call__(self, pixels: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Normalised pixels [B, 3, H, W] -> features [B, D]; `tokens` must be None."""
        features = self.visual(pixels)
        pooled: Tensor = features[0] if isinstance(features, tuple) else features
        return pooled


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

    def __call__(self, pixels: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Normalised pixels [B, 3, H, W] and prompts [d, n, Wv] or [d, B, n, Wv] -> features [B, D].

        Where only the class token is read afterwards, the last block computes only its row.
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


def image_tower(visual: nn.Module) -> ImageTransformer | PlainImageTower:
    """The walker for an image tower."""
    return ImageTransformer(visual) if ImageTransformer.fits(visual) else PlainImageTower(visual)


def has_quick_gelu(model: nn.Module) -> bool:
    """Whether any activation of an open_clip model is QuickGELU."""
    return any(isinstance(module, QuickGELU) for module in model.modules())
