"""What an audit says: the attack of a paper beside a sound one, and by how much the first overstates."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apd_bench.core.specs import ThreatModel
from apd_bench.core.text import plain
from apd_bench.core.versions import package_version
from apd_bench.leaderboard import statistics
from apd_bench.leaderboard.columns import interval, percent, with_interval
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.published import Reproduction
from apd_bench.leaderboard.statistics import Estimate
from apd_bench.records.checks import CHECKS
from apd_bench.records.record import Record, json_form

SCHEMA = 1
_DRAWS = 9999


@dataclass(frozen=True)
class AuditResult:
    """One dataset (or their mean: `dataset` empty) at one budget, as shares of the same samples.

    `clean` are right without an attack, `protocol` withstand the attack of the paper, `worst` every attack. `gap` is
    what the paper's attack overstates: samples that withstand it and fall to another, which `fallen` names.
    """

    threat: str
    dataset: str
    clean: Estimate
    protocol: Estimate
    worst: Estimate
    gap: Estimate
    fallen: tuple[str, ...] = ()

    def sentence(self, attack: str) -> str:
        """The result in one line; `attack` is that of the paper."""
        place = f"{self.dataset or 'mean'}, {self.threat}"
        said = f"{place}: clean {percent(self.clean.value)}, {attack} {percent(self.protocol.value)}"
        if self.gap.value == 0:
            most = "" if self.gap.high is None else f" (95 %: at most {percent(self.gap.high)} points)"
            return f"{said}; no sample of {self.gap.n} falls to another attack{most}."
        return f"{said}, worst case {percent(self.worst.value)}: {with_interval(self.gap)} points less."


@dataclass(frozen=True, kw_only=True)
class Review:
    """An audit: what was audited and how, the results, what the literature says, masking, assumptions, cost."""

    title: str
    subject: Mapping[str, str]
    protocol: str
    sound: tuple[str, ...]
    results: tuple[AuditResult, ...]
    published: tuple[Reproduction, ...]
    masking: tuple[Mapping[str, Any], ...]
    assumed: tuple[str, ...]
    cost: tuple[Mapping[str, Any], ...]
    failed: tuple[str, ...] = ()
    command: str = ""

    def to_json(self) -> str:
        """The audit as JSON text; shares are in [0, 1], published values in percent."""
        pairs = [asdict(pair) | {"difference": pair.difference} for pair in self.published]
        content = {"schema": SCHEMA, "apd_bench": package_version()} | asdict(self) | {"published": pairs}
        return json.dumps(json_form(content), indent=1, sort_keys=True) + "\n"

    def page(self) -> str:
        """The audit as one page that needs nothing else."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "web"), autoescape=True, undefined=StrictUndefined,
            finalize=lambda value: plain(value, 400) if isinstance(value, str) else value,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        environment.globals |= {"percent": percent, "interval": interval, "with_interval": with_interval}
        return environment.get_template("review.html").render(review=self, checks=CHECKS, version=package_version())


def results(tables: Sequence[Table], attack: str) -> Iterator[AuditResult]:
    """The results of tables with one row each: the mean of a complete row of several sets first, then every set."""
    for table in tables:
        (row,) = table.rows
        names = [name for name in table.datasets if name in row.datasets]
        if row.complete and len(names) > 1:
            yield _result(table, row, names, attack)
        for name in names:
            yield _result(table, row, [name], attack)


def _result(table: Table, row: Row, names: Sequence[str], attack: str) -> AuditResult:
    hits = [row.datasets[name].hits for name in names]
    panels = {column: [one[column][None] for one in hits] for column in ("clean", attack, "worst")}
    gaps = [one[attack] & ~one["worst"] for one in hits]
    panels["gap"] = [gap[None] for gap in gaps]
    found = {column: statistics.accuracies(panel, _DRAWS)[0] for column, panel in panels.items()}
    one = names[0] if len(names) == 1 else ""
    fallen = np.flatnonzero(gaps[0].any(axis=0)) if one else ()
    return AuditResult(
        threat=_budget(table.key.threat),
        dataset=one,
        clean=found["clean"],
        protocol=found[attack],
        worst=found["worst"],
        gap=found["gap"],
        fallen=tuple(table.ids[one][place] for place in fallen),
    )


def _budget(threat: ThreatModel) -> str:
    return threat.label.removesuffix(" white-box")


def masking(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Per record what its checks for masked gradients say: the marks that fired, and every number."""
    return [
        {
            "dataset": record.cell.dataset.name,
            "threat": _budget(record.cell.threat),
            "attack": record.cell.attack.label,
            "cell": record.id,
            "suspect": list(record.suspect),
            "diagnostics": dict(record.diagnostics),
        }
        for record in records
    ]
