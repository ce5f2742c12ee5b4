"""Hand-made templates: nothing is learned."""

from collections.abc import Mapping
from typing import Any, ClassVar

from apd_bench.prompts.base import PromptLearner


class TemplateLearner(PromptLearner):
    """Zero-shot CLIP: the text of every class is `text`, or the data set's template, with its name."""

    defaults: ClassVar[Mapping[str, Any]] = {"text": ""}
