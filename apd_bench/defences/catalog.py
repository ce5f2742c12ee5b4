"""Every test-time defence by name: where its class is, its options with their sources, what a prediction costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from apd_bench.attacks.catalog import Configured

Passes = tuple[float, float]  # image passes forwards and backwards


@dataclass(frozen=True)
class DefenceEntry(Configured):
    """A test-time defence, the class of a `Defence`, what its options come from, and what a prediction costs.

    `cost` has the image passes (forwards, backwards) of one prediction for each unit of an option, or of the whole part
    of a product of options ("views*share", at least 1), and under "" those that it always takes; `needs` are what the
    backbone has to offer ("text_tokens"), of which the model has to have learned "visual_tokens".
    """

    _: KW_ONLY
    cost: Mapping[str, Passes] = field(default_factory=lambda: {"": (1, 0)})
    needs: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def passes(self, options: Mapping[str, Any]) -> Passes:
        """Image passes (forwards, backwards) of one prediction with these options, which may leave out defaults."""
        values = {"": 1, **self.defaults, **options}
        times = {key: math.prod(values[name] for name in key.split("*")) for key in self.cost}
        times |= {key: max(int(number), 1) for key, number in times.items() if "*" in key}
        forwards, backwards = (sum(times[key] * each[way] for key, each in self.cost.items()) for way in (0, 1))
        return float(forwards), float(backwards)


_HERE = "apd_bench.defences"
_TTC = "code Sxing2/CLIP-Test-time-Counterattacks code/test_time_counterattack.py"
_RTPT = "code TomSheng21/R-TPT rtpt.py"
_TPT = "code azshue/TPT tpt_classification.py"
_TAPT = "code xinwong/TAPT trainers/adv_v.py, configs/trainers/TAPTV"
_ANTI = "code MotasemAlfarra/Combating-Adversaries-with-Anti-Adversaries Anti_Adv.py"
_PURE = "code TMLResearchGroup-CAS/CLIPure CLIP_eval/CLIPure_Cos.py"
_COHEN = "code locuslab/smoothing code/certify.py"
_VIEWS = {"views": 64, "augment": "augmix"}
_TUNING = {**_VIEWS, "rate": 5e-3, "share": 0.1}
_BY_VIEW: Mapping[str, Passes] = {"views": (1, 0)}
_BY_STEP: Mapping[str, Passes] = {"": (2, 0), "steps": (1, 1)}  # the image, a gradient a step, the prediction
_AUGMENT = {"augment": ("crop_flip", "augmix")}


# fmt: off
def builtin() -> Iterator[DefenceEntry]:
    """All built-in defences; the controls first."""
    yield DefenceEntry(
        "mean_views", f"{_HERE}.mean_views:MeanViews", "mean over random views, without tuning", _VIEWS,
        choices=_AUGMENT, cost=_BY_VIEW,
        sources=dict.fromkeys(_VIEWS, f"{_RTPT}: its views, without its tuning and weights"))
    yield DefenceEntry(
        "tpt", f"{_HERE}.tpt:TPT", "test-time prompt tuning: one step on the entropy of the mean view", _TUNING,
        choices=_AUGMENT, cost=_BY_VIEW, needs=("text_tokens",), paper="Shu et al., NeurIPS 2022",
        sources=dict.fromkeys(_TUNING, _TPT))
    yield DefenceEntry(
        "r_tpt", f"{_HERE}.r_tpt:RTPT", "prompt tuning by pointwise entropy, views weighted by their likeness",
        {**_TUNING, "neighbours": 20, "temperature": 0.01}, choices=_AUGMENT, cost=_BY_VIEW, needs=("text_tokens",),
        aliases=("rtpt",), paper="Sheng et al., CVPR 2025",
        sources=dict.fromkeys((*_TUNING, "neighbours", "temperature"), _RTPT))
    tapt = {**_TUNING, "augment": "crop_flip", "rate": 5e-4, "weight": 100 / 9, "blocks": 8}
    yield DefenceEntry(
        "tapt", f"{_HERE}.tapt:TAPT", "visual prompts tuned towards the statistics of the training images", tapt,
        choices=_AUGMENT, cost={"": (1, 0), "views": (1, 0), "views*share": (1, 1)}, needs=("visual_tokens",),
        paper="Wang et al., CVPR 2025", sources=dict.fromkeys(tapt, _TAPT))
    ttc = {"radius": 4 / 255, "step": 1 / 255, "steps": 2, "threshold": 0.2, "weighting": 2.0}
    yield DefenceEntry(
        "ttc", f"{_HERE}.ttc:TTC", "counterattack: away from where the attack has driven the features", ttc,
        cost=_BY_STEP, paper="Xing et al., CVPR 2025", sources=dict.fromkeys(ttc, _TTC))
    anti = {"step": 0.15, "steps": 2}
    yield DefenceEntry(
        "anti_adversary", f"{_HERE}.anti_adversary:AntiAdversary", "a change that makes the model surer", anti,
        cost=_BY_STEP, paper="Alfarra et al., AAAI 2022", sources=dict.fromkeys(anti, _ANTI))
    yield DefenceEntry(
        "clipure_cos", f"{_HERE}.clipure:CLIPureCos", "the feature is turned towards the text of an empty prompt",
        {"steps": 10, "step": 30.0, "text": ""}, aliases=("clipure",), paper="Zhang et al., ICLR 2025",
        sources={"steps": _PURE, "step": _PURE, "text": "reason: the set's, as for its classes; published: 80"})
    smooth = {"sigma": 0.25, "samples": 100, "alpha": 0.001, "selection": 100, "estimation": 0}
    yield DefenceEntry(
        "smoothed", f"{_HERE}.smoothed:Smoothed", "majority over Gaussian noise, with a certified L2 radius", smooth,
        cost={"samples": (1, 0)}, paper="Cohen et al., ICML 2019", aliases=("randomized_smoothing",),
        sources={"sigma": "paper: the least of 0.25, 0.5 and 1 on ImageNet",
                 "samples": "reason: cost; the released code takes 100,000",
                 "alpha": _COHEN, "selection": _COHEN,
                 "estimation": f"reason: 0 computes no certificate; {_COHEN}: 100,000"})
# fmt: on


def resolve(name: str) -> DefenceEntry | None:
    """No name stands for a defence that is not listed."""
    return None
