"""A backbone joined with prompts: the view of training (PromptedModel) and the only object an attack sees (Classifier).

Both compute `s * <z / |z|, w / |w|> + b` in the same order of operations, so that a trained model and the classifier
made from it agree.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.slots import Prompts, VisualPrompts
from apd_bench.core.errors import IncompatibleChoice
from apd_bench.core.specs import PRECISIONS, one_of
from apd_bench.prompts.base import PromptLearner

_KEPT_LOGITS = 2**22
ClassifierT = TypeVar("ClassifierT", bound="Classifier")


@dataclass(frozen=True)
class Output:
    """Logits [B, C] in float32, normalised image features [B, D], normalised text features [C, D]."""

    logits: Tensor
    image_features: Tensor
    text_features: Tensor


@dataclass(frozen=True)
class BoundModel:
    """A model whose prompts and text features are fixed for one step; call it with pixels [B, 3, H, W] in [0, 1]."""

    backbone: Backbone
    prompts: Prompts
    text_features: Tensor

    def __call__(self, pixels: Tensor) -> Output:
        """The model's output on a batch; the text tower is not called."""
        features = functional.normalize(self.backbone.encode_image(pixels, self.prompts.visual), dim=-1)
        logits = functional.linear(features, self.text_features * self.backbone.logit_scale)
        if self.backbone.logit_bias:
            logits = logits + self.backbone.logit_bias
        return Output(logits=logits, image_features=features, text_features=self.text_features)

    def detached(self) -> "BoundModel":
        """The same model without a graph to the prompts: what an adversary attacks."""
        return BoundModel(self.backbone, self.prompts.detach(), self.text_features.detach())


class PromptedModel(nn.Module):
    """The training-time view: a frozen backbone and a learner; the learner's parameters are the only trainable ones."""

    def __init__(self, backbone: Backbone, learner: PromptLearner) -> None:
        super().__init__()
        self.backbone = backbone
        self.learner = learner
        self._fixed: tuple[Tensor, Tensor] | None = None

    def bind(self) -> BoundModel:
        """The model of this step: runs the learner and the text tower once, with a graph; fixed text once in all."""
        if self.learner.by_image:
            raise IncompatibleChoice(
                f"The text of {type(self.learner).__name__} depends on the image: it is evaluated here, not trained.",
                hint="Import a trained checkpoint: apd-bench import --format cocoop FILE",
            )
        prompts: Prompts = self.learner()
        return BoundModel(self.backbone, prompts, self.text_features(prompts))

    forward = bind

    def text_features(self, prompts: Prompts) -> Tensor:
        """Normalised text features [C, D] with `prompts`."""
        tokens = self.learner.texts()
        if prompts.text is not None:
            return self._per_class(self.backbone.encode_text(tokens, prompts.text))
        if self._fixed is None or self._fixed[0] is not tokens:
            with torch.no_grad():
                self._fixed = (tokens, self._per_class(self.backbone.encode_text(tokens)))
        return self._fixed[1]

    def _per_class(self, features: Tensor) -> Tensor:
        """Features [C * T, D] normalised, of an ensemble averaged over its T templates and normalised again."""
        features, count = functional.normalize(features, dim=-1), len(self.learner.class_names)
        if len(features) == count:
            return features
        return functional.normalize(features.view(count, -1, features.shape[-1]).mean(dim=1), dim=-1)


class Classifier(nn.Module):
    """The evaluation-time view: pixels in [0, 1] to logits, frozen, in eval mode, text features computed once.

    With `conditional`, a learner whose text depends on the image, the text tower runs in every pass, for each image;
    `text_features` [C, D] are then unused.

    `precision` "bf16" runs the forward pass under autocast; "tf32" is a setting of the whole process, see
    `matmul_precision`.
    """

    text_features: Tensor
    weight: Tensor
    visual_tokens: Tensor | None
    frame: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        text_features: Tensor,
        visual: VisualPrompts | None = None,
        *,
        precision: str = "fp32",
        conditional: PromptLearner | None = None,
    ) -> None:
        super().__init__()
        self.conditional = conditional
        self.precision = one_of("Precision", precision, PRECISIONS)
        self.backbone = backbone
        text_features = text_features.detach().clone()
        self.register_buffer("text_features", text_features)
        self.register_buffer("weight", text_features * backbone.logit_scale, persistent=False)
        self.register_buffer("visual_tokens", _frozen(visual.tokens if visual else None))
        self.register_buffer("frame", _frozen(visual.frame if visual else None))
        self.requires_grad_(False)
        self.eval()
        self._clean: dict[bytes, Tensor] = {}
        self._learner: tuple[PromptLearner, ...] = ()  # no submodule: what is learned is no part of the frozen model

    @property
    def learner(self) -> PromptLearner | None:
        """The learner that the classifier was made from, which a defence may tune further."""
        return self._learner[0] if self._learner else None

    @classmethod
    def from_learner(
        cls: type[ClassifierT], backbone: Backbone, learner: PromptLearner, *, precision: str = "fp32"
    ) -> ClassifierT:
        """The classifier of a learner's present prompts; runs the text tower once."""
        if learner.by_image:
            blank = torch.zeros(len(learner.class_names), backbone.shapes.embed_dim, device=backbone.device)
            return cls(backbone, blank, precision=precision, conditional=copy.deepcopy(learner))
        with torch.no_grad():
            bound = PromptedModel(backbone, learner).bind()
        made = cls(backbone, bound.text_features, bound.prompts.visual, precision=precision)
        made._learner = (learner,)
        return made

    def in_precision(self: ClassifierT, precision: str) -> ClassifierT:
        """The same model, sharing all weights, that computes in `precision`; itself where it does so already."""
        if precision == self.precision or "bf16" not in (precision, self.precision):
            return self
        twin = copy.copy(self)
        twin.precision = one_of("Precision", precision, PRECISIONS)
        return twin

    def clean_logits(self, pixels: Tensor, predict: Callable[[Tensor], Tensor]) -> tuple[Tensor, bool]:
        """The logits [B, C] of `predict` for unchanged images [B, 3, H, W], and whether it was called for them.

        It is called once for a batch, known by its content, whose logits are among the last 16 MB.
        """
        key = hashlib.blake2b(pixels.cpu().contiguous().numpy().tobytes(), digest_size=16).digest()
        if key in self._clean:
            return self._clean[key].clone(), False
        logits = predict(pixels)
        while self._clean and sum(map(Tensor.numel, self._clean.values())) + logits.numel() > _KEPT_LOGITS:
            del self._clean[next(iter(self._clean))]
        if logits.numel() <= _KEPT_LOGITS:
            self._clean[key] = logits.clone()
        return logits, True

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return len(self.text_features)

    def train(self: ClassifierT, mode: bool = True) -> ClassifierT:
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [0, 1] -> contiguous logits [B, C] in float32."""
        if self.precision == "bf16":
            with torch.autocast(pixels.device.type, dtype=torch.bfloat16):
                return self.scores(self.features(pixels)).float()
        return self.scores(self.features(pixels))

    def features(self, pixels: Tensor, tokens: Tensor | None = None, outputs: list[Tensor] | None = None) -> Tensor:
        """Image features [B, D] in float32, not normalised; with visual `tokens` instead of the classifier's own.

        Empty ones stand for none. `outputs` gets what the blocks of the image tower give, but the last.
        """
        visual = VisualPrompts(tokens=self.visual_tokens if tokens is None else tokens, frame=self.frame)
        return self.backbone.encode_image(pixels, visual, outputs).float()

    def scores(self, features: Tensor) -> Tensor:
        """Logits [B, C] of image features [B, D]."""
        features = functional.normalize(features, dim=-1)
        text = None if self.conditional is None else self.conditional.text_features(features)
        with torch.autocast(features.device.type, enabled=False):
            if text is None:
                logits = functional.linear(features, self.weight)
            else:
                logits = self.backbone.logit_scale * torch.einsum("bd,bcd->bc", features, text)
        return logits + self.backbone.logit_bias if self.backbone.logit_bias else logits


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Allows TF32 matrix products and convolutions on CUDA for "tf32", forbids them otherwise; restores what was set.

    Torch has two sets of switches for it. Both are set, so that neither contradicts the other while a model runs; the
    older ones cannot be read once somebody has used the newer ones.
    """
    allowed, cudnn, mkldnn = precision == "tf32", torch.backends.cudnn, torch.backends.mkldnn
    newer: list[tuple[Any, bool]] = [(torch.backends.cuda.matmul, allowed), (getattr(cudnn, "conv", None), allowed)]
    newer += [(getattr(mkldnn, name, None), False) for name in ("matmul", "conv")]
    newer = [(item, fast) for item, fast in newer if hasattr(item, "fp32_precision")]  # since torch 2.9
    before = [item.fp32_precision for item, _ in newer]
    try:
        older = (torch.get_float32_matmul_precision(), cudnn.allow_tf32)
    except RuntimeError:  # the newer ones were set without them
        older = None
    try:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        cudnn.allow_tf32 = allowed
        for item, fast in newer:
            item.fp32_precision = "tf32" if fast else "ieee"
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older[0])
            cudnn.allow_tf32 = older[1]
        for (item, _), value in zip(newer, before, strict=True):
            item.fp32_precision = value


def _frozen(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().clone()
