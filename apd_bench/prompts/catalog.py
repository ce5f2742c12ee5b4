"""The prompt learners by name; torch-free."""

from __future__ import annotations

LEARNERS: dict[str, str] = {
    "template": "apd_bench.prompts.template:TemplateLearner",
    "text": "apd_bench.prompts.text:TextLearner",
    "visual": "apd_bench.prompts.visual:VisualLearner",
    "independent": "apd_bench.prompts.independent:IndependentLearner",
    "coupled": "apd_bench.prompts.coupled:CoupledLearner",
    "fap": "apd_bench.prompts.fap:FapLearner",
    "frame": "apd_bench.prompts.frame:FrameLearner",
    "conditional": "apd_bench.prompts.conditional:ConditionalLearner",
}

NEEDS: dict[str, tuple[str, ...]] = {
    "template": (),
    "text": ("text_tokens",),
    "visual": ("visual_tokens",),
    "independent": ("text_tokens", "deep_text", "visual_tokens"),
    "coupled": ("text_tokens", "deep_text", "visual_tokens"),
    "fap": ("text_tokens", "deep_text", "visual_tokens"),
    "frame": ("frame", "visual_tokens"),
    "conditional": ("text_tokens",),
}
