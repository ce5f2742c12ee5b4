"""The nouns of a benchmark, validated and frozen: what is attacked, how it was trained, on what, by which attack.

Nothing here imports torch. A spec says everything that can change a number; a field whose metadata does not say
otherwise counts in the id of a cell (see `identity.py`).
"""

import ast
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from apd_bench.core.errors import UsageError, nearest
from apd_bench.core.identity import IF_GIVEN, NOT_IDENTITY, PLACELESS, UNRECORDED, counts_as, identify

Options = Mapping[str, Any]
NORMS = ("Linf", "L2")
KNOWLEDGE = ("white_box", "hand_prompt", "transfer", "undefended")
TASKS = ("zero_shot", "few_shot", "base_to_new", "cross_dataset")
CLASS_SETS = ("all", "base", "new")
SPLITS = ("test", "val", "held_out")  # held_out: val and the training images that the fit's few-shot draw did not take
SPACE = "model_input"  # where a perturbation acts
ATTACK_SEED = 0  # keys the noise of every attack, together with the sample ids
RESIZES = ("crop", "squash")
PRECISIONS = ("fp32", "tf32", "bf16")
TRAININGS = ("standard", "robust")
_FOUR_DECIMALS = 5e-5
_LEAST_L2 = 0.1  # below that, an L2 budget in 255ths is a Linf budget under the wrong norm


def one_of(what: str, value: str, allowed: Collection[str]) -> str:
    """`value` if it is one of `allowed`, else a UsageError that lists them and names the nearest."""
    if value not in tuple(allowed):
        near = nearest(str(value), allowed)
        raise UsageError(
            f"{what} '{value}' is not one of: {', '.join(allowed)}.", hint=f"Did you mean '{near}'?" if near else ""
        )
    return value


def parse_eps(text: str | float, norm: str = "Linf") -> float:
    """A budget in [0,1] pixel units from "4/255" or "0.0157"; 0 is the no-op budget. Raises UsageError otherwise.

    A Linf budget within 5e-5 (what four decimals leave open) of a whole number of 255ths is that number of 255ths:
    0.0157 and 4/255 are one budget, and so are any two that are written alike. An L2 budget below 0.1 that is a number
    of 255ths is refused: it is a Linf budget.
    """
    spelling = "0.5" if norm == "L2" else "4/255 or 0.0157"
    try:
        above, slash, below = str(text).partition("/")
        value = float(above) / float(below if slash else 1)
        if not math.isfinite(value):
            raise ValueError(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"eps '{text}' is not a number.", hint=f"Write it as {spelling}.") from error
    if value < 0 or (norm == "Linf" and value > 1):
        numerator = f"{value:g}/255"
        meant = f" Did you mean {numerator}?" if 1 < value <= 255 else ""
        if norm == "L2":
            raise UsageError(f"eps '{text}' is below 0.", hint=f"Write it as {spelling}.")
        raise UsageError(
            f"eps '{text}' lies outside [0, 1]: budgets are in units of pixels between 0 and 1.{meant}",
            hint=f"Write --eps {numerator}." if meant else f"Write it as {spelling}.",
        )
    whole = round(value * 255)
    if norm == "Linf" and whole and abs(value - whole / 255) < _FOUR_DECIMALS:
        return whole / 255
    if norm == "L2" and 0 < value < _LEAST_L2 and "/" in format_eps(value):
        raise UsageError(
            f"eps {format_eps(value)} is the size of a Linf budget, but L2 measures the length of the whole change.",
            hint=f"The usual L2 budget is 0.5; where so small a one is meant, write {value:.2g}.",
        )
    above, _, below = format_eps(value, norm).partition("/")
    return float(above) / float(below or 1)


def format_eps(eps: float, norm: str = "Linf") -> str:
    """`eps` as the field writes it: "4/255" where it is (nearly) a whole or half number of 255ths, else decimal.

    L2 budgets are always decimal: "0.5".
    """
    numerator = eps * 255
    if norm == "Linf" and abs(numerator * 2 - round(numerator * 2)) < 1e-6:
        return f"{round(numerator * 2) / 2:g}/255"
    return f"{eps:.6g}"


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """What the attacker may do: norm, budget `eps` in [0,1] pixel units, knowledge, and where the change acts."""

    eps: float
    norm: str = "Linf"
    knowledge: str = "white_box"
    source: str | None = None

    def __post_init__(self) -> None:
        one_of("Norm", self.norm, NORMS)
        one_of("Attacker knowledge", self.knowledge, KNOWLEDGE)
        object.__setattr__(self, "eps", parse_eps(self.eps, self.norm))
        if (self.knowledge == "transfer") != (self.source is not None):
            raise UsageError(
                "A transfer threat needs `source` (whose model makes the examples); no other threat takes one.",
                hint="Write knowledge = 'transfer' together with source = 'METHOD'.",
            )

    @property
    def eps_255(self) -> float:
        """The budget as a numerator over 255."""
        return round(self.eps * 255, 6)

    @property
    def label(self) -> str:
        """One line for people."""
        return self.label_with(self.eps)

    def label_with(self, *budgets: float) -> str:
        """The label with these budgets instead of its own, for a table of several."""
        eps = ", ".join(dict.fromkeys(format_eps(budget, self.norm) for budget in budgets))
        source = f" from {self.source}" if self.source else ""
        return f"{self.norm} {eps} {self.knowledge.replace('_', '-')}{source}"


@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """An attack by canonical name with the options that differ from its defaults, and the version of its code.

    `code` is the digest of the file that it lies in, for a plug-in.
    """

    name: str
    options: Options = field(default_factory=dict)
    version: int = 1
    code: str | None = None

    @property
    def label(self) -> str:
        """The attack as it is written on the command line: `pgd` or `pgd(steps=100)`."""
        inner = ", ".join(f"{key}={value!r}" for key, value in sorted(self.options.items()))
        return f"{self.name}({inner})" if inner else self.name


@dataclass(frozen=True, kw_only=True)
class DefenceSpec(AttackSpec):
    """A test-time defence by canonical name, with the same fields as an attack."""


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of "name" or "name(key=value, ...)"; raises UsageError when it does not read as that."""
    name, bracket, inside = text.strip().partition("(")
    if not bracket:
        return name.strip(), {}
    try:
        call = ast.parse(f"f({inside}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise UsageError(f"'{text}' does not read as NAME(option=value, ...).", hint="Write it like 'pgd(steps=100)'.")
    options: dict[str, Any] = {}
    for word in call.keywords:
        if word.arg is None or word.arg in options:
            raise UsageError(
                f"'{text}' gives '{word.arg or '**'}' twice or without a name.", hint="Write option=value."
            )
        options[word.arg] = _literal(word.value, f"{name.strip()}({word.arg}=...)")
    return name.strip(), options


def _literal(node: ast.expr, place: str) -> Any:
    """A number, a fraction, text in quotes, true or false, or a list of these."""
    try:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return ast.literal_eval(node.left) / ast.literal_eval(node.right)
        return ast.literal_eval(node)
    except (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        written = ast.unparse(node)[:80]
        raise UsageError(
            f"'{written}' in {place} is neither a number, text in quotes, nor a list of these.",
            hint=f"Text needs quotes: '{written}'." if isinstance(node, ast.Name) else "",
        ) from error


def _placeless_name(spec: Any) -> str:
    """The name of a model or set; its first word where the rest says where the files lie, whose content decides."""
    head: str = spec.name.partition(":")[0].partition("(")[0]
    return head if head in ("folder", "local", "local-robust") else spec.name


def _trained(name: str) -> Mapping[str, Any]:
    """Metadata of a field of a fit that counts only for a method that trains."""
    return counts_as(lambda fit: getattr(fit, name) if fit.method.trains else None)


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """An image-text model: architecture, weights, activation, and whether the weights were trained adversarially.

    `loader` is the "module:function" (spec, device) -> Backbone; `code` the digest of the file that it lies in, for a
    plug-in.
    """

    name: str = field(metadata=counts_as(_placeless_name))
    architecture: str
    weights: str
    activation: str
    training: str = "standard"
    digest: str | None = None
    image_size: int = field(default=224, metadata=NOT_IDENTITY)
    offers: tuple[str, ...] = field(default=("text_tokens", "visual_tokens"), metadata=NOT_IDENTITY)
    loader: str = field(default="apd_bench.backbones.load:load_backbone", metadata=UNRECORDED)
    code: str | None = None
    options: Options = field(default_factory=dict, metadata=PLACELESS)
    title: str = field(default="", metadata=NOT_IDENTITY)
    licence: str = field(default="", metadata=NOT_IDENTITY)
    source: str = field(default="", metadata=NOT_IDENTITY)
    aliases: tuple[str, ...] = field(default=(), metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        one_of("Backbone training", self.training, TRAININGS)


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A labelled image set: names, template, splits and where they come from.

    `loader` is the "module:function" that opens it; `code` the digest of the file that it lies in, for a plug-in. A
    `template` of several lines is an ensemble, one template a line.
    """

    name: str = field(metadata=counts_as(_placeless_name))
    template: str
    loader: str = field(default="", metadata=UNRECORDED)
    code: str | None = None
    title: str = field(default="", metadata=NOT_IDENTITY)
    group: str = field(default="benchmark", metadata=NOT_IDENTITY)
    num_classes: int | None = field(default=None, metadata=NOT_IDENTITY)
    counts: Mapping[str, int] = field(default_factory=dict, metadata=NOT_IDENTITY)
    image_size: int | None = field(default=None, metadata=NOT_IDENTITY)
    version: int = 1
    digest: str | None = None
    options: Options = field(default_factory=dict, metadata=PLACELESS)
    licence: str = field(default="", metadata=NOT_IDENTITY)
    source: str = field(default="", metadata=NOT_IDENTITY)
    citation: str = field(default="", metadata=UNRECORDED)
    description: str = field(default="", metadata=UNRECORDED)
    aliases: tuple[str, ...] = field(default=(), metadata=NOT_IDENTITY)


@dataclass(frozen=True, kw_only=True)
class MethodRecipe:
    """A method made concrete: learner, objective and every number; `sources` says where each number comes from.

    `learner` and `objective` are names, of this package or of a plug-in's classes; `digest` is that of the files that
    define the latter. `state` is the folder of a prompt state that is evaluated as it stands. `reconstruction`: neither
    the code nor the settings of its paper are public.
    """

    name: str
    learner: str
    objective: str | None
    learner_options: Options = field(default_factory=dict)
    objective_options: Options = field(default_factory=dict)
    inner_attack: Options = field(default_factory=dict)
    training: Options = field(default_factory=dict)
    needs: tuple[str, ...] = field(default=(), metadata=NOT_IDENTITY)
    sources: Mapping[str, str] = field(default_factory=dict, metadata=NOT_IDENTITY)
    title: str = field(default="", metadata=NOT_IDENTITY)
    paper: str = field(default="", metadata=NOT_IDENTITY)
    digest: str | None = None
    state: str | None = field(default=None, metadata=UNRECORDED)
    reconstruction: bool = field(default=False, metadata=NOT_IDENTITY)

    @property
    def trains(self) -> bool:
        """False for methods without anything to learn, such as zero-shot CLIP."""
        return self.objective is not None


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One trained (or assembled) prompt state: what is learned, on which images, with which seed.

    `train_eps` is the budget of the inner attack in [0,1] pixel units (None where the method never attacks), `shots`
    the images per class (0 for zero-shot, -1 for all), `classes` the part of the label set it is fitted on.
    """

    backbone: BackboneSpec
    method: MethodRecipe
    dataset: DatasetSpec
    seed: int = field(metadata=_trained("seed"))
    shots: int = field(default=16, metadata=_trained("shots"))
    classes: str = field(default="all", metadata=_trained("classes"))
    train_eps: float | None = field(default=None, metadata=_trained("train_eps"))
    resize: str = "crop"

    def __post_init__(self) -> None:
        one_of("Class set", self.classes, CLASS_SETS)
        one_of("Resize", self.resize, RESIZES)
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"A seed is a whole number of at least 0, not {self.seed}.", hint="Write --seeds 1,2,3.")
        if self.shots < -1 or (self.shots == 0 and self.method.trains):
            raise UsageError(
                f"{self.shots} training images per class leave nothing to learn from.",
                hint="Write --shots 16, or -1 for all.",
            )
        if self.train_eps is not None:
            object.__setattr__(self, "train_eps", parse_eps(self.train_eps))

    @cached_property
    def id(self) -> str:
        """The content address of the prompt state."""
        return identify(self)

    @property
    def label(self) -> str:
        """One line for people."""
        return f"{self.backbone.name} {self.method.name} {self.dataset.name} {self.shots}-shot seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number to be measured: a fit, the set and classes it is tested on, the threat and the attack.

    `limit` is the number of samples of `split` (None: all), which have fixed, stratified ids. `resize` is that of the
    test images (None: as in the fit). `source` is the fit whose model makes the examples of a transfer threat.
    `defence` adapts the model to each image before it predicts; only then may the threat be "undefended": the attacker
    knows the model and not its defence.
    """

    fit: Fit
    dataset: DatasetSpec
    threat: ThreatModel
    attack: AttackSpec
    task: str = "few_shot"
    classes: str = "all"
    split: str = "test"
    limit: int | None = None
    precision: str = "fp32"
    resize: str | None = field(default=None, metadata=counts_as(lambda cell: cell.test_resize))
    source: Fit | None = None
    defence: DefenceSpec | None = field(default=None, metadata=IF_GIVEN)

    def __post_init__(self) -> None:
        one_of("Task", self.task, TASKS)
        one_of("Resize", self.test_resize, RESIZES)
        one_of("Class set", self.classes, CLASS_SETS)
        one_of("Split", self.split, SPLITS)
        one_of("Precision", self.precision, PRECISIONS)
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"A limit of {self.limit} samples leaves nothing to measure.", hint="Use --limit 20.")
        if self.threat.knowledge == "undefended" and self.defence is None:
            raise UsageError("There is no defence that an attacker could not know.", hint="Add --defences ttc.")

    @property
    def test_resize(self) -> str:
        """How the test images are made square."""
        return self.resize or self.fit.resize

    @cached_property
    def id(self) -> str:
        """The content address of the record."""
        return identify(self)

    @property
    def label(self) -> str:
        """One line for people."""
        split = "" if self.split == "test" else f" ({self.split})"
        tested = f"{self.dataset.name}/{self.classes}{split}"
        defence = "" if self.defence is None else f" + {self.defence.label}"
        return f"{self.fit.label}{defence} -> {tested} | {self.threat.label} | {self.attack.label}"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A declared grid: what `run` crosses, and the protocol that all of its cells share.

    `recipe` overrides every method's recipe, `recipes[NAME]` one method's; `reference` lists methods that are always
    run for comparison. `train_eps` None means: train at the tested budget; `test_resize` None: test images as those of
    training; `split` "val": test on validation images, "held_out": also on training images that the fit did not draw.
    Each of `rules` has the training sets (`datasets`) and/or `shots` it applies to and a `recipe` that overrides the
    common one; later rules win. With `defences`, every model is measured without and with each of them, attacked as if
    it had none and by `adaptive`. `options` are defaults of the command line, such as `jobs`, that no cell depends on.
    """

    name: str
    title: str = ""
    backbones: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    eps: tuple[float, ...] = ()
    norm: str = "Linf"
    knowledge: str = "white_box"
    transfer_source: str | None = None
    seeds: tuple[int, ...] = (1, 2, 3)
    shots: tuple[int, ...] = (16,)
    task: str = "few_shot"
    train_dataset: str | None = None
    train_eps: float | None = None
    split: str = "test"
    limit: int | None = None
    resize: str = "crop"
    test_resize: str | None = None
    precision: str = "fp32"
    defences: tuple[str, ...] = ()
    recipe: Options = field(default_factory=dict)
    rules: tuple[Options, ...] = ()
    recipes: Mapping[str, Options] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    options: Options = field(default_factory=dict)
    notes: str = ""

    def with_options(self, **changes: Any) -> "Suite":
        """The suite with some fields replaced."""
        return replace(self, **changes)
