"""The prompt learners by name, and what a backbone has to offer for each; torch-free, so that a plan can read it."""

LEARNERS: dict[str, str] = {
    "template": "apd_bench.prompts.base:TemplateLearner",
    "text": "apd_bench.prompts.text:TextLearner",
    "visual": "apd_bench.prompts.visual:VisualLearner",
    "independent": "apd_bench.prompts.independent:IndependentLearner",
    "coupled": "apd_bench.prompts.coupled:CoupledLearner",
    "fap": "apd_bench.prompts.coupled:FapLearner",
    "frame": "apd_bench.prompts.frame:FrameLearner",
    "conditional": "apd_bench.prompts.conditional:ConditionalLearner",
}
BY_IMAGE = frozenset({"conditional"})  # class texts depend on the image
_BOTH = ("text_tokens", "deep_text", "visual_tokens")
NEEDS: dict[str, tuple[str, ...]] = {  # the attribute `needs` of their classes, and of a plug-in's that inherits
    "template": (),
    "text": ("text_tokens",),
    "visual": ("visual_tokens",),
    "independent": _BOTH,
    "coupled": _BOTH,
    "fap": _BOTH,
    "frame": ("frame", "visual_tokens"),
    "conditional": ("text_tokens",),
}
