"""Hand-made templates: nothing is learned."""

from __future__ import annotations

from apd_bench.prompts.base import PromptLearner


class TemplateLearner(PromptLearner):
    """Zero-shot CLIP: the text of every class is the data set's template with its name."""
