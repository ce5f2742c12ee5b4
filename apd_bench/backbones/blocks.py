"""One transformer block of open_clip, run on its own modules with less moving of memory.

`nn.MultiheadAttention` transposes and copies its input (about a sixth of the time of a small model on a CPU) and picks
another kernel when no gradient is wanted. Here its own weights go through the same product, so the values are those
of the block (up to rounding) and the same with and without gradient. Blocks of any other kind are called as they are.
"""

from typing import Any

from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional


def run_block(block: Any, x: Tensor, mask: Tensor | None = None, *, rows: int | None = None) -> Tensor:
    """`block(x)` for x [B, L, W] and an additive mask [L, L]; with `rows` only the first rows [B, rows, W] of it."""
    if not _plain(block):
        whole: Tensor = block(x, attn_mask=mask)
        return whole[:, :rows]
    x_rows = x if rows is None else x[:, :rows]
    x_rows = x_rows + block.ls_1(_attend(block.attn, block.ln_1(x), mask, rows))
    out: Tensor = x_rows + block.ls_2(block.mlp(block.ln_2(x_rows)))
    return out


def patches_of(conv: nn.Conv2d, pixels: Tensor) -> Tensor:
    """`conv(pixels)` as patch embeddings [B, patches, W]; a matrix product where the patches tile the image.

    The backward pass of that convolution costs ten times the product on a CPU.
    """
    (high, wide), (height, width) = conv.kernel_size, pixels.shape[2:]
    tiles = conv.stride == conv.kernel_size and conv.padding == (0, 0) and conv.groups == 1
    if not tiles or height % high or width % wide:
        grid: Tensor = conv(pixels)
        return grid.flatten(2).transpose(1, 2)
    cut = pixels.reshape(len(pixels), -1, height // high, high, width // wide, wide).permute(0, 2, 4, 1, 3, 5)
    return functional.linear(cut.reshape(len(pixels), -1, conv.weight[0].numel()), conv.weight.flatten(1), conv.bias)


def _plain(block: Any) -> bool:
    """Whether the block is self-attention by a packed nn.MultiheadAttention without extras."""
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return False
    attention = block.attn
    packed = type(attention) is nn.MultiheadAttention and attention.in_proj_weight is not None
    return bool(packed and attention.bias_k is None and not attention.add_zero_attn and attention.batch_first)


def _attend(attention: nn.MultiheadAttention, x: Tensor, mask: Tensor | None, rows: int | None) -> Tensor:
    """Self-attention [B, L, W]; with `rows` only those queries [B, rows, W]."""
    weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, attention.embed_dim
    if rows is None:
        query, key, value = functional.linear(x, weight, bias).chunk(3, dim=-1)
    else:
        query = functional.linear(x[:, :rows], weight[:width], bias[:width])
        key, value = functional.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        mask = None if mask is None else mask[:rows]
    count, heads = len(x), attention.num_heads
    query, key, value = (part.reshape(count, -1, heads, width // heads).transpose(1, 2) for part in (query, key, value))
    mask = None if mask is None else mask.to(query.dtype)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    out: Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return out
