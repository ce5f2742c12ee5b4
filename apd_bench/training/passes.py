"""How many images pass through a model in training: the cost that a record reports."""

from dataclasses import dataclass

from torch import Tensor

from apd_bench.prompts.classifier import BoundModel, Output


@dataclass
class Passes:
    """Image passes through the model, summed over samples, and how often the text tower ran."""

    forwards: int = 0
    backwards: int = 0
    text_forwards: int = 0

    def add(self, images: int, forwards: int, backwards: int) -> None:
        """Counts `images` that passed `forwards` and `backwards` times each."""
        self.forwards += images * forwards
        self.backwards += images * backwards


class Counted:
    """A bound model that counts its passes; a pass whose image features carry a graph is one backward as well."""

    def __init__(self, model: BoundModel, passes: Passes) -> None:
        self.model = model
        self.passes = passes
        self.prompts = model.prompts
        self.text_features = model.text_features

    def __call__(self, pixels: Tensor) -> Output:
        """The prediction for pixels [B, 3, H, W]."""
        output = self.model(pixels)
        self.passes.add(len(pixels), 1, int(output.image_features.requires_grad))
        return output

    def detached(self) -> "Counted":
        """The same model without the graph of its prompts: what the adversary attacks."""
        return Counted(self.model.detached(), self.passes)
