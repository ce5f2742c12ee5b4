"""What a measurement is: facts and per-sample outcomes, from the evaluation through workers and shards to the record.

A field of `Facts` is in all of them: it is written, read and merged by what it says here and nowhere else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, TypedDict, cast

from apd_bench.records.checks import suspect
from apd_bench.records.outcomes import Metrics, Outcomes, accuracies

_EVENTS = ("attacked_again", "out_of_memory")


class Timing(TypedDict, total=False):
    """Seconds of wall time, image passes and memory."""

    seconds: float  # all of the cell: loading, clean prediction, attack, audit and diagnostics
    load_seconds: float  # backbone, images and prompt state
    clean_seconds: float
    clean_forwards: float  # image passes of the clean prediction; 0 where an earlier cell had made it
    attack_seconds: float
    model_seconds: float  # those of `attack_seconds` that were spent inside the model's passes
    forwards: float  # image passes of the attack
    backwards: float
    peak_memory: float  # bytes: of torch on a GPU, of the process elsewhere


class FitFacts(TypedDict, total=False):
    """The prompt state that was measured."""

    digest: str  # of the prompts
    num_parameters: int
    seconds: float  # of training
    forwards: float  # image passes of training
    backwards: float
    collapsed: bool  # it predicts one class for nearly everything
    fewer_shots: Mapping[str, int]  # `classes` with fewer images than were asked for, and the `fewest` of one
    carried_from: str  # the backbone that imported prompts were made for, where it is not the one that is measured
    classes_digest: str  # of the class names and the template


class PredictionCost(TypedDict, total=False):
    """One prediction of one image by a defended model: the median of a few images, each on its own."""

    forwards: float  # image passes of the model, where an undefended prediction is 1
    backwards: float
    texts: float  # encodings of one class text
    seconds: float
    undefended_seconds: float


class Effective(TypedDict, total=False):
    """What really ran, where it differs from what was asked; attacks add what their libraries and members used."""

    batch_size: int
    batch_size_found: Mapping[str, Any]  # how the batch size was found, where nobody asked for one
    data: Mapping[str, Any]  # where the images came from
    out_of_memory: int  # how often the batch was halved
    attacked_again: int  # samples that the float32 model denied and that were attacked again on it
    resumed_at: int  # the member of an ensemble at which an interrupted attack went on
    targets: int  # target classes, where there are fewer than were asked for
    members: Sequence[str]  # of an ensemble, those that ran
    eot: int  # draws that a gradient of a random defence was the mean over
    draw_agreement: float  # the mean cosine between gradients of single draws, which decides their number
    out_of_budget: str  # the member of an adaptive attack at which its budget was used up
    prediction: PredictionCost  # of a defended model
    shards: int  # parts that the cell was measured in
    by_shard: Mapping[str, Sequence[Any]]  # what the shards did in different ways


class Environment(TypedDict, total=False):
    """Where it was measured."""

    apd_bench: str
    commit: str | None
    dirty: bool | None  # the working tree had changes that are in no commit
    packages: Mapping[str, Any]  # versions by name
    plugins: Mapping[str, Any]  # code of others by name
    platform: str
    python: str
    processor_count: int
    device: str
    device_name: str
    threads: int
    cuda: str | None
    tf32: bool  # matrix products in TF32: where the cell asks for it; never while prompts are trained
    cudnn_deterministic: bool


def first(values: Sequence[Any], weights: Sequence[int] = ()) -> Any:
    """What the first shard says, where all say the same."""
    return values[0]


def total(timings: Iterable[Mapping[str, Any]], weights: Sequence[int] = ()) -> Timing:
    """Seconds and passes added up, and the largest memory."""
    merged: dict[str, Any] = {}
    for timing in timings:
        for name, value in timing.items():
            before = merged.get(name, 0)
            merged[name] = max(before, value or 0) if name == "peak_memory" else before + (value or 0)
    return cast("Timing", merged)


def mean(facts: Sequence[Mapping[str, Any]], weights: Sequence[int]) -> dict[str, Any]:
    """Numbers as means weighted by samples, lists as their union."""
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for fact in facts for name in fact):
        pairs = [(fact[name], weight) for fact, weight in zip(facts, weights, strict=True) if name in fact]
        if all(isinstance(value, (int, float)) for value, _ in pairs):
            samples = sum(weight for _, weight in pairs)
            merged[name] = sum(value * weight for value, weight in pairs) / samples if samples else 0.0
        elif all(isinstance(value, (list, tuple)) for value, _ in pairs):
            merged[name] = list(dict.fromkeys(item for value, _ in pairs for item in value))
        else:
            merged[name] = pairs[0][0]
    return merged


def events(facts: Sequence[Mapping[str, Any]], weights: Sequence[int] = ()) -> dict[str, Any]:
    """Numbers of events are added; what the shards did in different ways is listed by shard under `by_shard`."""
    merged: dict[str, Any] = {}
    differing: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for fact in facts for name in fact):
        values = [fact.get(name) for fact in facts]
        if name in _EVENTS:
            merged[name] = sum(value or 0 for value in values)
        else:
            merged[name] = next((value for value in reversed(values) if value is not None), None)
            if any(value != values[0] for value in values):
                differing[name] = values
    return merged | ({"by_shard": differing} if differing else {}) | {"shards": len(facts)}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that is known of a measured cell but its per-sample outcomes.

    `diagnostics`: masking checks by name, see `checks.CHECKS`; `suspect`: the reasons of those that fired, not to trust
    the number. The keys of the other parts are documented with their types. Shards are put together by the function
    `merge(values, numbers of samples)` of a field, without one by `first`.
    """

    metrics: Metrics = field(default_factory=Metrics)
    diagnostics: Mapping[str, Any] = field(default_factory=dict, metadata={"merge": mean})
    suspect: tuple[str, ...] = ()
    effective: Effective = field(default_factory=Effective, metadata={"merge": events})
    fit: FitFacts = field(default_factory=FitFacts)
    timing: Timing = field(default_factory=Timing, metadata={"merge": total})
    environment: Environment = field(default_factory=Environment)

    def facts(self) -> dict[str, Any]:
        """The facts by name."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name in FACTS}


FACTS: dict[str, Any] = {item.name: item for item in fields(Facts)}


def facts_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in JSON `data`, of which an older file may lack some; raises ValueError for another kind of value."""
    facts: dict[str, Any] = {}
    for name, item in FACTS.items():
        kind = dict if item.default is MISSING else list
        value = data.get(name, kind())
        if not isinstance(value, kind):
            raise ValueError(f"its {name} is {type(value).__name__}")
        facts[name] = tuple(value) if kind is list else value
    return facts


@dataclass(frozen=True, kw_only=True)
class Measured(Facts):
    """A measured cell, or a shard of one."""

    outcomes: Outcomes

    def __repr__(self) -> str:
        return f"Measured({accuracies(self.metrics)}{''.join(f', suspect: {why}' for why in self.suspect)})"

    @property
    def clean_accuracy(self) -> float:
        """The share of samples classified correctly without an attack."""
        return self.metrics["clean_accuracy"]

    @property
    def robust_accuracy(self) -> float:
        """The share of samples classified correctly under the attack."""
        return self.metrics["robust_accuracy"]

    @classmethod
    def merge(cls, parts: "Sequence[Measured]") -> "Measured":
        """The shards of a cell, in their order, as the whole cell; accuracies are counted anew from the samples."""
        if len(parts) == 1:
            return parts[0]
        weights = [len(part.outcomes) for part in parts]
        order = [name for part in parts for name in part.outcomes.sample_id.tolist()]
        outcomes = Outcomes.merge([part.outcomes for part in parts], order)
        facts = {
            name: item.metadata.get("merge", first)([getattr(part, name) for part in parts], weights)
            for name, item in FACTS.items()
        }
        whole = cls(outcomes=outcomes, **facts)
        return replace(whole, metrics=outcomes.metrics(), suspect=suspect(whole.diagnostics))
