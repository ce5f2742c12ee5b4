"""Every attack by name: where its function is, what its options are and which paper it comes from. Torch-free."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from apd_bench.errors import IncompatibleChoice, unknown_name

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


@dataclass(frozen=True, kw_only=True)
class AttackEntry:
    """An attack: the "module:function" behind it, its options with defaults, and what it can do.

    `kind` "ball" attacks answer whether a sample breaks within eps; "distance" attacks look for the nearest
    adversarial point, whatever its distance. `whole` attacks get all samples of a cell at once and split them into
    batches themselves. `open_options` leaves the options to a library. `choices` lists the values of text options;
    `fixed` holds arguments that are part of the attack and no option. `plain_ce`: a library's attack that climbs the
    cross-entropy as it is usually computed, which saturates.
    """

    name: str
    target: str
    title: str
    version: int = 1
    defaults: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    norms: tuple[str, ...] = BOTH
    kind: str = "ball"
    gradient: bool = True
    whole: bool = False
    extra: str | None = None
    open_options: bool = False
    plain_ce: bool = False
    paper: str = ""


_PGD = {"steps": 40, "step": 0.25, "schedule": "cosine", "restarts": 1, "start": "uniform", "loss": "stable-ce"}
_PGD_CHOICES = {"schedule": ("constant", "cosine"), "start": ("uniform", "none"), "loss": LOSSES}
_MADRY = "Madry et al., ICLR 2018"
_CROCE = "Croce & Hein, ICML 2020"


def _pgd(name: str, title: str, *, aliases: tuple[str, ...] = (), paper: str = _MADRY, **changes: Any) -> AttackEntry:
    return AttackEntry(
        name=name,
        target="apd_bench.attacks.pgd:pgd",
        title=title,
        defaults=_PGD | changes,
        choices=_PGD_CHOICES,
        aliases=aliases,
        paper=paper,
    )


def _auto(
    name: str, title: str, members: tuple[str, ...], *, aliases: tuple[str, ...] = (), eot: int = 1
) -> AttackEntry:
    return AttackEntry(
        name=name,
        target="apd_bench.attacks.autoattack:autoattack",
        title=title,
        defaults={"members": members, "iterations": 100, "targets": 9, "queries": 5000, "eot": eot},
        choices={"members": (*STANDARD, "apgd-dlr", "fab")},
        aliases=aliases,
        gradient=members != ("square",),
        whole=True,
        paper=_CROCE,
    )


def _suite(name: str, title: str, **changes: Any) -> AttackEntry:
    return AttackEntry(
        name=name,
        target="apd_bench.attacks.worst:worst",
        title=title,
        version=3,
        defaults={"steps": 30, "near": 3, "targets": 9, "close": 0.2, "order": SUITE} | changes,
        choices={"order": ("apgd-ce", "apgd-close", "apgd-margin", "apgd-near", "apgd-t")},
        whole=True,
    )


def builtin() -> Iterator[AttackEntry]:
    """All built-in attacks; the weak and cheap first, the ensembles last."""
    yield AttackEntry(name="none", target="apd_bench.attacks.simple:none", title="no attack: clean accuracy",
                      aliases=("clean",), gradient=False)  # fmt: skip
    yield AttackEntry(name="noise", target="apd_bench.attacks.simple:noise", title="uniform noise, the sanity floor",
                      defaults={"draws": 1}, gradient=False)  # fmt: skip
    yield AttackEntry(name="fgsm", target="apd_bench.attacks.simple:fgsm", title="one gradient step of length eps",
                      defaults={"loss": "stable-ce"}, choices={"loss": LOSSES},
                      paper="Goodfellow et al., ICLR 2015")  # fmt: skip
    yield _pgd("pgd", "PGD on the cross-entropy that never saturates", aliases=("pgd.sound",))
    yield _pgd("pgd.literature", "PGD-100, step = eps, as in FAP and its followers",
               steps=100, step=1.0, schedule="constant", loss="ce", paper="FAP, NeurIPS 2024")  # fmt: skip
    yield _pgd("pgd.apt", "PGD-100, step = eps/4, as in APT and its followers",
               steps=100, step=0.25, schedule="constant", loss="ce", paper="APT, CVPR 2024")  # fmt: skip
    yield _pgd("cw", "PGD on the margin loss inside the ball: what this field calls CW", aliases=("cw-linf",),
               loss="margin", paper="Carlini & Wagner, S&P 2017; loss f6 with kappa = inf")  # fmt: skip
    yield AttackEntry(name="pgd-t", target="apd_bench.attacks.targeted:pgd_targeted",
                      title="targeted margin PGD over the classes nearest to the true one",
                      defaults={"steps": 20, "step": 0.25, "schedule": "cosine", "targets": 9, "start": "uniform"},
                      choices={"schedule": ("constant", "cosine"), "start": ("uniform", "none")},
                      paper="Gowal et al., 2019 (MultiTargeted)")  # fmt: skip
    yield AttackEntry(name="tpgd", target="apd_bench.attacks.pgd:tpgd", title="PGD on KL(clean || adversarial)",
                      defaults={"steps": 100, "step": 0.25, "schedule": "constant", "restarts": 1},
                      choices={"schedule": ("constant", "cosine")}, paper="TRADES, ICML 2019")  # fmt: skip
    yield AttackEntry(name="apgd-ce", target="apd_bench.attacks.apgd:apgd_ce",
                      title="auto-PGD on the cross-entropy that never saturates",
                      defaults={"steps": 20, "restarts": 1, "loss": "stable-ce"}, choices={"loss": LOSSES},
                      paper=_CROCE)  # fmt: skip
    yield AttackEntry(name="apgd-t", target="apd_bench.attacks.apgd:apgd_targeted",
                      title="auto-PGD on the targeted DLR loss (targeted margin for fewer than 4 classes)",
                      defaults={"steps": 20, "targets": 9}, paper=_CROCE)  # fmt: skip
    yield _suite("worst", "ordered suite, only survivors go on: AutoAttack's strength at a fraction of its passes")
    yield _suite("worst.fast", "the cheapest such suite found within half a point of AutoAttack: results/bench",
                 order=("apgd-near", "apgd-close"))  # fmt: skip
    yield AttackEntry(name="cw-l2", target="apd_bench.attacks.carlini_wagner:carlini_wagner_l2",
                      title="minimal L2 distance by Carlini and Wagner's search over the constant", kind="distance",
                      defaults={"steps": 100, "searches": 3, "rate": 1.0, "constant": 2.0, "targets": 9},
                      paper="Carlini & Wagner, S&P 2017")  # fmt: skip
    yield AttackEntry(name="ddn", target="apd_bench.attacks.ddn:ddn", kind="distance",
                      title="minimal L2 distance, direction and norm decoupled",
                      defaults={"steps": 100, "gamma": 0.05, "targets": 9}, paper="Rony et al., CVPR 2019")  # fmt: skip
    yield _auto("autoattack", "standard AutoAttack", STANDARD, aliases=("aa", "autoattack.standard"))
    yield _auto("autoattack.rand", "AutoAttack for randomised models, 20 draws a gradient", ("apgd-ce", "apgd-dlr"),
                eot=20)  # fmt: skip
    yield _auto("autoattack.ce-dlr", "APGD-CE and APGD-DLR: what FAP calls AutoAttack", ("apgd-ce", "apgd-dlr"))
    yield _auto("autoattack.ce-t", "APGD-CE and APGD-T: the evaluation of RobustVLM", ("apgd-ce", "apgd-t"))
    for member in (*STANDARD, "apgd-dlr"):
        yield _auto(f"autoattack.{member}", f"AutoAttack's {member} alone", (member,))


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
