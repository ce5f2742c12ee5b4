"""Every attack by name: where its function is, what its options are and which paper it comes from. Torch-free."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from apd_bench.core.errors import IncompatibleChoice, unknown_name

EXTRA_PREFIX = "torchattacks:"
BOTH = ("Linf", "L2")
LOSSES = ("stable-ce", "ce", "margin", "dlr")
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
SUITE = ("apgd-near", "apgd-t", "apgd-close")  # the order of `worst`
# torchattacks' own AutoAttack runs 10 iterations instead of 100; its CW never moves pixels at 0 or 1, does not search
# its constant and takes the masked class for 0. Both overstate robustness, so they are refused.
REFUSED = {
    "autoattack": ("runs 10 instead of 100 iterations and is not AutoAttack", "autoattack"),
    "cw": ("cannot move pixels that are 0 or 1 and fails where all logits are negative", "cw-l2"),
}
# Those of torchattacks that climb torch's cross-entropy, by the start or end of their lower-case names.
_PLAIN_CE_STARTS, _PLAIN_CE_ENDS = ("pgd", "eotpgd", "upgd", "bim"), ("fgsm", "apgd")


@dataclass(frozen=True)
class Configured:
    """What has a name and options, an attack or a defence: `target` "module:name", the options with their defaults.

    `choices` lists the values of text options; `open_options` leaves the options to a library. `code`: the digest of
    the file of a plug-in.
    """

    name: str
    target: str
    title: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    version: int = 1
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    open_options: bool = False
    paper: str = ""
    code: str | None = None


@dataclass(frozen=True)
class AttackEntry(Configured):
    """An attack and what it can do: `attack(search, **options)`, which has no defaults of its own.

    `kind` "ball" attacks answer whether a sample breaks within eps; "distance" attacks look for the nearest adversarial
    point, whatever its distance. `whole` attacks get all samples of a cell at once and split them into batches
    themselves. `fixed` holds arguments that are part of the attack and no option. `plain_ce`: a library's attack that
    climbs the cross-entropy as it is usually computed, which saturates.
    """

    _: KW_ONLY
    fixed: Mapping[str, Any] = field(default_factory=dict)
    norms: tuple[str, ...] = BOTH
    kind: str = "ball"
    gradient: bool = True
    whole: bool = False
    extra: str | None = None
    plain_ce: bool = False

    def preset(
        self, name: str, title: str, *, aliases: tuple[str, ...] = (), paper: str = "", **defaults: Any
    ) -> "AttackEntry":
        """The same function under another name, with other defaults."""
        defaults = {**self.defaults, **defaults}
        return replace(self, name=name, title=title, defaults=defaults, aliases=aliases, paper=paper or self.paper)


# What the options mean, and in which unit.
UNITS = {
    "steps": "gradient steps of one run",
    "step": "length of the first step, as a share of eps",
    "schedule": "how the step shrinks: constant, or cosine to 0",
    "restarts": "runs, each from a start of its own",
    "start": "uniform: a random point within the budget; none: the image",
    "loss": "what is climbed",
    "draws": "random draws: of points, or of a defence that a gradient is the mean over",
    "targets": "wrong classes that are aimed at, the strongest first; at most K - 1",
    "near": "runs, each towards the class that is strongest at the best point so far",
    "close": "samples whose best margin is below this share of the clean one get further runs",
    "order": "members, each on the survivors of those before",
    "members": "members, each on the survivors of those before",
    "iterations": "gradient steps of each member",
    "queries": "forward passes of Square a sample",
    "budget": "image passes a sample at most, after which no further run begins",
    "eot": "gradients that are averaged for each step",
    "searches": "values of the constant that are tried",
    "rate": "Adam's first step, in linearised distances to the boundary over the root of the number of pixels",
    "constant": "the first value of the constant, in squares of the linearised distance",
    "gamma": "share by which the radius grows or shrinks at the first step",
}

_HERE = "apd_bench.attacks"
_CROCE = "Croce & Hein, ICML 2020"
_SCHEDULES, _STARTS = ("constant", "cosine"), ("uniform", "none")


# fmt: off
def builtin() -> Iterator[AttackEntry]:
    """All built-in attacks; the weak and cheap first, the ensembles last."""
    yield AttackEntry("none", f"{_HERE}.simple:none", "no attack: clean accuracy", aliases=("clean",), gradient=False)
    yield AttackEntry("noise", f"{_HERE}.simple:noise", "uniform noise, the sanity floor", {"draws": 1}, gradient=False)
    yield AttackEntry("fgsm", f"{_HERE}.simple:fgsm", "one gradient step of length eps", {"loss": "stable-ce"},
                      choices={"loss": LOSSES}, paper="Goodfellow et al., ICLR 2015")

    pgd = AttackEntry(
        "pgd", f"{_HERE}.pgd:pgd", "PGD on the cross-entropy that never saturates",
        {"steps": 40, "step": 0.25, "schedule": "cosine", "restarts": 1, "start": "uniform", "loss": "stable-ce"},
        choices={"schedule": _SCHEDULES, "start": _STARTS, "loss": LOSSES}, aliases=("pgd.sound",),
        paper="Madry et al., ICLR 2018")
    plain = pgd.preset("", "", steps=100, schedule="constant", loss="ce")
    yield pgd
    yield plain.preset("pgd.literature", "PGD-100, step = eps, as in FAP and its followers",
                       step=1.0, paper="FAP, NeurIPS 2024")
    yield plain.preset("pgd.apt", "PGD-100, step = eps/4, as in APT and its followers", paper="APT, CVPR 2024")
    yield pgd.preset("cw", "PGD on the margin loss inside the ball: what this field calls CW", aliases=("cw-linf",),
                     loss="margin", paper="Carlini & Wagner, S&P 2017; loss f6 with kappa = inf")
    yield AttackEntry("pgd-t", f"{_HERE}.pgd:pgd_targeted",
                      "targeted margin PGD over the classes nearest to the true one",
                      {"steps": 20, "step": 0.25, "schedule": "cosine", "targets": 9, "start": "uniform"},
                      choices={"schedule": _SCHEDULES, "start": _STARTS}, paper="Gowal et al., 2019 (MultiTargeted)")
    yield AttackEntry("tpgd", f"{_HERE}.pgd:tpgd", "PGD on KL(clean || adversarial)",
                      {"steps": 100, "step": 0.25, "schedule": "constant", "restarts": 1},
                      choices={"schedule": _SCHEDULES}, paper="TRADES, ICML 2019")
    yield AttackEntry("apgd-ce", f"{_HERE}.apgd:apgd_ce", "auto-PGD on the cross-entropy that never saturates",
                      {"steps": 20, "restarts": 1, "loss": "stable-ce"}, choices={"loss": LOSSES}, paper=_CROCE)
    yield AttackEntry("apgd-t", f"{_HERE}.apgd:apgd_targeted",
                      "auto-PGD on the targeted DLR loss (targeted margin for fewer than 4 classes)",
                      {"steps": 20, "targets": 9}, paper=_CROCE)

    worst = AttackEntry(
        "worst", f"{_HERE}.worst:worst",
        "ordered suite, only survivors go on: AutoAttack's strength at a fraction of its passes",
        {"steps": 30, "near": 3, "targets": 9, "close": 0.2, "order": SUITE}, version=3, whole=True,
        choices={"order": ("apgd-ce", "apgd-close", "apgd-margin", "apgd-near", "apgd-t")})
    yield worst
    yield worst.preset("worst.fast", "the cheapest such suite found within half a point of AutoAttack: results/bench",
                       order=("apgd-near", "apgd-close"))

    ways = ("transfer", "straight", "replay", "unrolled", "gate", "square")
    yield AttackEntry(
        "adaptive", "apd_bench.defences.adaptive:adaptive", "the worst case of all ways round a test-time defence",
        {"iterations": 40, "near": 2, "targets": 5, "draws": 8, "queries": 500, "budget": 100_000,
         "order": ways},
        choices={"order": ways}, whole=True, paper="Croce et al., ICML 2022")

    yield AttackEntry("cw-l2", f"{_HERE}.carlini_wagner:carlini_wagner_l2",
                      "minimal L2 distance by Carlini and Wagner's search over the constant", kind="distance",
                      defaults={"steps": 100, "searches": 3, "rate": 1.0, "constant": 2.0, "targets": 9},
                      paper="Carlini & Wagner, S&P 2017")
    yield AttackEntry("ddn", f"{_HERE}.ddn:ddn", "minimal L2 distance, direction and norm decoupled",
                      {"steps": 100, "gamma": 0.05, "targets": 9}, kind="distance", paper="Rony et al., CVPR 2019")

    standard = AttackEntry(
        "autoattack", f"{_HERE}.autoattack:autoattack", "standard AutoAttack",
        {"members": STANDARD, "iterations": 100, "targets": 9, "queries": 5000, "eot": 1},
        choices={"members": (*STANDARD, "apgd-dlr", "fab")}, aliases=("aa", "autoattack.standard"), whole=True,
        paper=_CROCE)
    yield standard
    yield standard.preset("autoattack.rand", "AutoAttack for randomised models, 20 draws a gradient",
                          members=("apgd-ce", "apgd-dlr"), eot=20)
    yield standard.preset("autoattack.ce-dlr", "APGD-CE and APGD-DLR: what FAP calls AutoAttack",
                          members=("apgd-ce", "apgd-dlr"))
    yield standard.preset("autoattack.ce-t", "APGD-CE and APGD-T: the evaluation of RobustVLM",
                          members=("apgd-ce", "apgd-t"))
    for member in (*STANDARD, "apgd-dlr"):
        alone = standard.preset(f"autoattack.{member}", f"AutoAttack's {member} alone", members=(member,))
        yield replace(alone, gradient=member != "square")
# fmt: on


def resolve(name: str) -> AttackEntry | None:
    """The entry of `torchattacks:NAME`; raises for the two that are refused and for names the library lacks."""
    if not name.lower().startswith(EXTRA_PREFIX):
        return None
    asked = name[len(EXTRA_PREFIX) :].strip()
    if asked.lower() in REFUSED:
        reason, instead = REFUSED[asked.lower()]
        raise IncompatibleChoice(
            f"torchattacks:{asked} is refused: it {reason}.", hint=f"Use '{instead}', which is the real one."
        )
    offered = torchattacks_names()
    spelled = {item.lower(): item for item in offered}.get(asked.lower(), asked)
    if offered and spelled not in offered:
        raise unknown_name("torchattacks attack", asked, offered)
    return AttackEntry(
        name=f"{EXTRA_PREFIX}{spelled}",
        target="apd_bench.attacks.torchattacks_adapter:torchattack",
        title=f"{spelled} of the torchattacks library",
        fixed={"library_name": spelled},
        extra="torchattacks",
        open_options=True,
        plain_ce=spelled.lower().startswith(_PLAIN_CE_STARTS) or spelled.lower().endswith(_PLAIN_CE_ENDS),
    )


def torchattacks_names() -> list[str]:
    """The attacks that the installed torchattacks offers, read from its source; empty when it is not installed."""
    found = find_spec("torchattacks")
    if found is None or found.origin is None:
        return []
    tree = ast.parse(Path(found.origin).read_text("utf-8"))
    imports = (
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and ".attacks." in f".{node.module}."
    )
    names = sorted({alias.asname or alias.name for node in imports for alias in node.names})
    return [item for item in names if item.lower() not in REFUSED and item not in ("Attack", "LGV", "MultiAttack")]
