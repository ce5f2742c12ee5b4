"""What a run cost, stage by stage, from the records of its cells: seconds, passes, time outside the model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from apd_bench.core.text import table
from apd_bench.records.record import Record
from apd_bench.records.store import Store
from apd_bench.runner.reporter import duration


@dataclass
class Stage:
    """The cost of one stage: `runs` fits or cells, seconds summed over workers, image passes."""

    name: str
    runs: int = 0
    seconds: float = 0.0
    forwards: float = 0.0
    backwards: float = 0.0
    attack_seconds: float = 0.0
    model_seconds: float = 0.0

    def add(self, timing: Mapping[str, Any]) -> None:
        """Adds the timing of one fit or cell."""
        self.runs += 1
        for name in ("seconds", "forwards", "backwards", "attack_seconds", "model_seconds"):
            setattr(self, name, getattr(self, name) + float(timing.get(name) or 0))


def stages_of(store: Store, records: Iterable[Record], fits: Iterable[str]) -> list[Stage]:
    """The stages in the order of work: fit, the clean prediction, each attack."""
    fit, clean = Stage("fit"), Stage("clean")
    attacks: dict[str, Stage] = {}
    for fit_id in fits:
        fit.add(store.card(fit_id))
    for record in records:
        name, timing = record.cell.attack.label, dict[str, Any](record.timing)
        if (before := timing.get("clean_seconds")) is not None:
            clean.add({"seconds": before, "forwards": timing.get("clean_forwards", record.metrics.get("n", 0))})
            timing["seconds"] = timing.get("attack_seconds") or timing.get("seconds")
        attacks.setdefault(name, Stage(name)).add(timing)
    return [stage for stage in (fit, clean, *attacks.values()) if stage.runs]


def summary(stages: list[Stage], wall_seconds: float) -> list[str]:
    """The stages as lines of a table, with the share of attack time outside the model's passes."""
    rows = []
    for stage in stages:
        outside = f"{100 * (1 - stage.model_seconds / stage.attack_seconds):.0f}%" if stage.attack_seconds else ""
        passes = (f"{stage.forwards:,.0f}", f"{stage.backwards:,.0f}")
        rows.append((stage.name, str(stage.runs), f"{stage.seconds:.1f}", *passes, outside))
    header = ("stage", "runs", "seconds", "forwards", "backwards", "outside model")
    attack = sum(stage.attack_seconds for stage in stages)
    model = sum(stage.model_seconds for stage in stages)
    share = f"; {100 * (1 - model / attack):.1f}% of attack time was outside the model" if attack else ""
    worked = sum(stage.seconds for stage in stages)
    total = f"{duration(worked)} of work in {duration(wall_seconds)}{share}."
    return [*table(rows, header, right=True).splitlines(), total]
