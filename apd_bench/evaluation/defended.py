"""What a cell with a test-time defence has beside others: its judge, its attacker, and what a prediction costs."""

import time
from typing import cast

import torch
from torch import Tensor

from apd_bench.attacks.meter import Meter
from apd_bench.core.specs import ThreatModel
from apd_bench.defences.base import Attacked, Defence, Verdict
from apd_bench.records.measured import PredictionCost

_TIMED = 8  # images whose prediction is timed


def meters(defence: Defence, threat: ThreatModel, batch_size: int) -> tuple[Meter, Meter]:
    """The judge and the adversary of a defence, whose batches are so small that the model sees at most `batch_size`.

    An attacker who does not know the defence has the model alone. One who does has the defence; of a random one, other
    draws than the judge's. Where the attacked model is not the judge's, broken samples stay in the search.
    """
    size = max(1, batch_size // defence.width)
    judge = Meter(Verdict(defence), batch_size=size)
    if threat.knowledge == "undefended":
        return judge, Meter(defence.model, batch_size=batch_size, persist=True)
    model = Attacked(defence) if defence.draws else defence
    return judge, Meter(model, batch_size=size, persist=defence.draws)


def columns(judge: Meter, images: Tensor, correct: Tensor, attacked: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Per-sample facts on the CPU: `share`, of repeated predictions that are right under the attack, and the defence's.

    `attacked` are the audited images of the rows `correct`; of the others no prediction counts.
    """
    verdict = judge.model
    if not isinstance(verdict, Verdict):
        return {}
    size = judge.batch_size or max(len(images), 1)
    found: dict[str, list[Tensor]] = {}
    for part in images.split(size):  # type: ignore[no-untyped-call]
        for name, column in verdict.defence.facts(part).items():
            found.setdefault(name, []).append(column)
    facts = {name: torch.cat(parts).cpu() for name, parts in found.items()}
    if not verdict.defence.draws:
        return facts
    share = torch.zeros(len(images), device=images.device)
    for place in filter(len, torch.split(torch.arange(len(attacked), device=images.device), size)):  # one, if empty
        share[correct[place]] = verdict.share(attacked[place], labels[correct[place]])
    return {**facts, "share": share.cpu()}


def prediction_cost(judge: Meter, images: Tensor) -> PredictionCost:
    """Image passes, class texts and seconds of one prediction, and the seconds of one without the defence."""
    verdict, x = judge.model, images[:_TIMED]
    if not isinstance(verdict, Verdict) or not len(x):
        return {}
    defence = verdict.defence
    before = {name: getattr(defence, name) for name in ("forwards", "backwards", "texts")}
    with torch.no_grad():
        seconds = [_seconds(defence, row) for row in x.split(1)]  # type: ignore[no-untyped-call]
        plain = [_seconds(defence.model, row) for row in x.split(1)]  # type: ignore[no-untyped-call]
    spent = {name: (getattr(defence, name) - then) / len(x) for name, then in before.items()}
    middle = {"seconds": sorted(seconds)[len(x) // 2], "undefended_seconds": sorted(plain)[len(x) // 2]}
    return cast("PredictionCost", {**spent, **middle})


def _seconds(model: object, x: Tensor) -> float:
    began = time.perf_counter()
    z: Tensor = model(x)  # type: ignore[operator]
    z.sum().item()  # waits for the device
    return time.perf_counter() - began
