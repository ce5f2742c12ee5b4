"""The prompt learners by name; torch-free."""

from __future__ import annotations

LEARNERS: dict[str, str] = {
    "template": "apd_bench.prompts.template:TemplateLearner",
    "text": "apd_bench.prompts.text:TextLearner",
    "visual": "apd_bench.prompts.visual:VisualLearner",
    "independent": "apd_bench.prompts.independent:IndependentLearner",
}

NEEDS: dict[str, tuple[str, ...]] = {
    "template": (),
    "text": ("text_tokens",),
    "visual": ("visual_tokens",),
    "independent": ("text_tokens", "deep_text", "visual_tokens"),
}
