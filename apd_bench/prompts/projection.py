"""The linear maps that tie the prompts of one tower to those of the other."""

import math

import torch
from torch import Tensor, nn


class Projection(nn.Module):
    """One linear map for each of `count` layers, [count, n, from] -> [count, n, to], drawn as torch draws a Linear.

    All maps start equal, as the deep copies in MaPLe's code do.
    """

    def __init__(self, count: int, width_from: int, width_to: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width_from)
        weight = torch.empty(width_to, width_from).uniform_(-bound, bound, generator=generator)
        bias = torch.empty(width_to).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(weight.expand(count, -1, -1).clone())
        self.bias = nn.Parameter(bias.expand(count, -1).clone())

    def forward(self, prompts: Tensor) -> Tensor:
        """Prompts [count, n, from] of one tower -> prompts [count, n, to] of the other."""
        return torch.baddbmm(self.bias.unsqueeze(1), prompts, self.weight.transpose(1, 2))
