"""The interface of everything that can be learned: parameters in, Prompts out."""

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.configs import require
from apd_bench.backbones.slots import Prompts
from apd_bench.core.errors import CorruptFile, UsageError, unknown_name
from apd_bench.core.text import spoken

INIT_STD = 0.02  # CoOp, MaPLe, VPT: every prompt that has no words to start from is drawn from N(0, 0.02^2)


class PromptLearner(nn.Module):
    """Learnable prompts for one backbone and one list of C class names.

    A subclass makes its parameters in `start` and returns them as `Prompts` from `forward`. `options` may set what
    `defaults` lists, nothing else. All randomness comes from `generator`. The backbone is no submodule: parameters and
    state are the learner's alone. Raises UnknownName or UsageError for options, IncompatibleChoice where the backbone
    lacks what the learner `needs`.
    """

    needs: ClassVar[Collection[str]] = ()  # of "text_tokens", "deep_text", "visual_tokens", "frame"
    defaults: ClassVar[Mapping[str, Any]] = {}
    by_image: ClassVar[bool] = False  # whether every image has text features of its own: `text_features(images)`

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        template: str,
        options: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        for name in options:
            if name not in self.defaults:
                raise unknown_name(f"option of the learner {type(self).__name__}", name, self.defaults)
        if not class_names:
            raise UsageError("A prompt learner needs at least one class name.")
        for offers in (backbone.spec.offers, tuple(backbone.shapes.offers)):
            require(replace(backbone.spec, offers=offers), self.needs, by=type(self).__name__)
        self._held = (backbone,)
        self.options: dict[str, Any] = {**self.defaults, **options}
        self.effective = dict(self.options)  # as they act on this backbone, such as a depth cut to the number of blocks
        self.template = template
        self.class_names = tuple(class_names)
        self._tokens: Tensor | None = None
        self.start(generator)
        self.to(backbone.device)

    @property
    def backbone(self) -> Backbone:
        """The backbone that the prompts were made for."""
        return self._held[0]

    @property
    def num_parameters(self) -> int:
        """How many numbers are learned."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self) -> Prompts:
        """The prompts, with a graph to the parameters."""
        return Prompts()

    @property
    def used_templates(self) -> tuple[str, ...]:
        """The templates that act: those of the option `text`, or of the set; an ensemble has one a line."""
        return tuple(str(self.options.get("text") or self.template).splitlines())

    def texts(self) -> Tensor:
        """Token ids [C, L] that go with `forward().text`; of an ensemble of T templates [C * T, L], class by class."""
        if self._tokens is None:
            self._tokens = self._lay_out()
        return self._tokens

    def state(self) -> dict[str, Tensor]:
        """A copy of the learnable tensors on the CPU in float32."""
        return {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in self.named_parameters()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a saved state; raises CorruptFile that names missing, unexpected or wrongly shaped tensors."""
        parameters = dict(self.named_parameters())
        problems = [f"'{name}' is missing" for name in parameters if name not in state]
        problems += [f"'{name}' is unexpected" for name in state if name not in parameters]
        problems += [
            f"'{name}' is {[*state[name].shape]} instead of {[*value.shape]}"
            for name, value in parameters.items()
            if name in state and state[name].shape != value.shape
        ]
        if problems:
            raise CorruptFile(
                f"The prompt state does not fit {type(self).__name__}: {'; '.join(problems)}.",
                hint="It was learned with another recipe, backbone or class list; fit it again.",
            )
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(state[name])

    def rebind(self, class_names: Sequence[str], template: str | None = None) -> None:
        """Carries what was learned to other classes (and another template)."""
        if not class_names:
            raise UsageError("A prompt learner needs at least one class name.")
        self.template = self.template if template is None else template
        self.class_names = tuple(class_names)
        self._tokens = None

    def start(self, generator: torch.Generator) -> None:
        """Makes the parameters; called once, with backbone, options, class names and template in place."""

    def blocks(self, name: str, *layers: int) -> int:
        """The option `name`, a depth of at least 1, cut to the least of `layers`; `effective` says so."""
        self.effective[name] = depth = min(whole(self.options, name, 1), *layers)
        return depth

    def __deepcopy__(self, memo: dict[int, Any]) -> "PromptLearner":
        """A copy with parameters of its own and the same backbone."""
        memo[id(self.backbone)] = self.backbone
        twin = type(self).__new__(type(self))
        twin.__dict__.update({name: deepcopy(value, memo) for name, value in self.__dict__.items()})
        return twin

    def text_features(self, image_features: Tensor) -> Tensor:
        """Normalised text features [B, C, D] for normalised image features [B, D]; only where `by_image`."""
        raise NotImplementedError

    def _lay_out(self) -> Tensor:
        """Token ids of the plain template texts."""
        for line in self.used_templates:
            if "{}" not in line:
                raise UsageError(f"The class text '{line}' has no {{}} for the name.")
        return self.backbone.tokenize([fill(line, name) for name in self.class_names for line in self.used_templates])


class TemplateLearner(PromptLearner):
    """Zero-shot CLIP: nothing is learned; the text of every class is `text`, or the data set's template."""

    defaults: ClassVar[Mapping[str, Any]] = {"text": ""}


def fill(template: str, name: str) -> str:
    """The template with the class name in place of `{}`."""
    return template.replace("{}", spoken(name))


def normal(*shape: int, generator: torch.Generator, std: float = INIT_STD) -> nn.Parameter:
    """A parameter drawn from N(0, std^2) on the CPU, so that a seed means the same on every device."""
    return nn.Parameter(torch.randn(*shape, generator=generator) * std)


def whole(options: Mapping[str, Any], name: str, least: int = 0) -> int:
    """The option `name` as a whole number of at least `least`; UsageError otherwise."""
    value = options[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"The option {name} = {value!r} must be a whole number of at least {least}.")
    return int(value)


def flag(options: Mapping[str, Any], name: str) -> bool:
    """The option `name` as true or false; UsageError otherwise."""
    value = options[name]
    if not isinstance(value, bool):
        raise UsageError(f"The option {name} = {value!r} must be true or false.")
    return value
