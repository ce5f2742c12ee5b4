"""The mean over random views, with no tuning: the control that shows how much of a defence is failure of transfer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from apd_bench.core.errors import UsageError
from apd_bench.defences.base import Defence
from apd_bench.defences.views import AUGMENTATIONS, View, draw_views, look


class OfViews(Defence):
    """A defence that looks at an image and at random views of it; option `views` counts the image too."""

    draws: ClassVar[bool] = True

    def prepare(self) -> None:
        """Checks the options."""
        self.whole("views")
        if self.options["augment"] not in AUGMENTATIONS:
            raise UsageError(f"The option augment is one of: {', '.join(AUGMENTATIONS)}.")

    def noise(self, generator: torch.Generator, shape: torch.Size) -> list[View]:
        """The views but for the image itself."""
        return draw_views(self.width - 1, self.options["augment"], generator)

    @property
    def width(self) -> int:
        """The number of views."""
        return int(self.options["views"])

    def seen(self, x: Tensor, views: list[View]) -> Tensor:
        """The image and its views [B, V, 3, H, W]."""
        return torch.cat([x[:, None], look(x, views)], dim=1) if views else x[:, None]


class MeanViews(OfViews):
    """Mean logits of the image and its views."""

    def predict(self, x: Tensor, noise: list[View]) -> Tensor:
        """sum_v z(x_v) / V."""
        seen = self.seen(x, noise)
        return self.logits(seen.flatten(0, 1)).view(*seen.shape[:2], -1).mean(1)
