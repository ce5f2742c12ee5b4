"""The declared columns of a table, shared by every format: name, meaning, and the value of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.statistics import Estimate

Value = str | int | float | None


@dataclass(frozen=True)
class Column:
    """One column of the machine-readable tables."""

    name: str
    value: Callable[[Table, Row], Value]


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage, or a dash."""
    return "–" if share is None else f"{100 * share:.{digits}f}"


def interval(estimate: Estimate | None, digits: int = 1) -> str:
    """The 95 % interval in percent, or a dash."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return "–"
    return f"{100 * estimate.low:.{digits}f}–{100 * estimate.high:.{digits}f}"


def with_interval(estimate: Estimate | None) -> str:
    """`41.2 (38.0–44.1)`, or a dash."""
    if estimate is None:
        return "–"
    inner = interval(estimate)
    return percent(estimate.value) if inner == "–" else f"{percent(estimate.value)} ({inner})"


def rank_text(row: Row) -> str:
    """The rank, or a dash for a row that is not ranked."""
    return "–" if row.rank is None else str(row.rank)


def suspect_text(row: Row) -> str:
    """How many of the row's cells carry a suspect mark, and how many fits collapsed; empty when none."""
    parts = [f"⚠ {max(row.suspect.values())}"] if row.suspect else []
    return " ".join([*parts, f"collapsed {row.collapsed}"] if row.collapsed else parts)


def missing_text(row: Row) -> str:
    """The datasets that lack cells of the row, with how many; empty for a complete row."""
    return ", ".join(f"{name} {count}" for name, count in row.missing.items())


def cost(seconds: float | None) -> str:
    """Seconds to two figures, or a dash."""
    if seconds is None:
        return "–"
    return f"{seconds:.0f}" if seconds >= 9.95 else f"{seconds:.1f}" if seconds >= 0.995 else f"{seconds:.2g}"


def estimate_columns(table: Table) -> list[str]:
    """The names of the accuracy columns in their declared order."""
    return ["clean", *table.attacks, "worst"]


def table_columns(attacks: Sequence[str]) -> list[Column]:
    """All columns of a summary row, in the declared order, for a file whose tables use `attacks`."""

    def measured(name: str) -> list[Column]:
        def pick(row: Row) -> Estimate | None:
            return row.estimates.get(name)

        return [
            Column(name, lambda _t, r: _scaled(e.value) if (e := pick(r)) else None),
            Column(f"{name} low", lambda _t, r: _scaled(e.low) if (e := pick(r)) else None),
            Column(f"{name} high", lambda _t, r: _scaled(e.high) if (e := pick(r)) else None),
        ]

    columns = [
        Column("group", lambda t, _r: t.key.group),
        Column("backbone", lambda t, _r: t.key.backbone),
        Column("backbone training", lambda t, _r: t.key.training),
        Column("norm", lambda t, _r: t.key.threat.norm),
        Column("eps", lambda t, _r: round(t.key.threat.eps, 8)),
        Column("eps over 255", lambda t, _r: round(t.key.threat.eps * 255, 4)),
        Column("knowledge", lambda t, _r: t.key.threat.knowledge),
        Column("space", lambda t, _r: t.key.threat.space),
        Column("task", lambda t, _r: t.key.task),
        Column("shots", lambda t, r: t.key.shots if r.trains else 0),
        Column("rank", lambda _t, r: r.rank),
        Column("method", lambda _t, r: r.method),
        Column("parameters", lambda _t, r: r.parameters),
        *measured("clean"),
    ]
    for attack in attacks:
        columns += measured(attack)
    return [
        *columns,
        *measured("worst"),
        Column("harmonic mean", lambda _t, r: _scaled(r.harmonic)),
        Column("samples", lambda _t, r: r.samples or None),
        Column("datasets", lambda t, _r: len(t.datasets)),
        Column("seeds", lambda _t, r: len(r.seeds) if r.trains else 0),
        Column("cells done", lambda _t, r: r.done),
        Column("cells planned", lambda _t, r: r.planned),
        Column("suspect cells", lambda _t, r: max(r.suspect.values(), default=0)),
        Column("suspect reasons", lambda _t, r: "; ".join(r.suspect)),
        Column("collapsed fits", lambda _t, r: r.collapsed),
        Column("train seconds per fit", lambda _t, r: _rounded(r.train_seconds, 1)),
        Column("attack seconds", lambda _t, r: _rounded(r.attack_seconds, 1)),
        Column("attack seconds per sample", lambda _t, r: _rounded(r.sample_seconds, 3)),
        Column("forwards per sample", lambda _t, r: _rounded(r.forwards, 1)),
        Column("backwards per sample", lambda _t, r: _rounded(r.backwards, 1)),
        Column("recipe", lambda _t, r: r.variant),
    ]


def _scaled(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 3)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
