"""Boards as CSV: one line per method and table, and one line per method, dataset and column. Percent, UTF-8."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from apd_bench.leaderboard.columns import Value, table_columns
from apd_bench.leaderboard.escape import csv_text
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.tidy import attack_order

LONG_COLUMNS = (
    "group", "backbone", "backbone training", "norm", "eps", "knowledge", "space", "task", "shots", "dataset",
    "method", "attack", "accuracy", "low", "high", "samples", "seeds", "per seed",
)  # fmt: skip


def render_csv(tables: Sequence[Table]) -> str:
    """The summary rows of all tables; attacks that a table lacks are empty there."""
    attacks = sorted({attack for table in tables for attack in table.attacks}, key=attack_order)
    columns = table_columns(attacks)
    lines = ([column.value(table, row) for column in columns] for table in tables for row in table.rows)
    return _write([column.name for column in columns], lines)


def render_long_csv(tables: Sequence[Table]) -> str:
    """One line per table, method, dataset and column ("clean", each attack, "worst"), with every seed's value."""
    lines: list[list[Value]] = []
    for table in tables:
        key = table.key
        head: list[Value] = [
            key.group, key.backbone, key.training, key.threat.norm, round(key.threat.eps, 8), key.threat.knowledge,
            key.threat.space, key.task,
        ]  # fmt: skip
        for row in table.rows:
            for dataset in table.datasets:
                result = row.datasets.get(dataset)
                for name, estimate in result.estimates.items() if result else ():
                    low, high = (
                        None if edge is None else round(100 * edge, 3) for edge in (estimate.low, estimate.high)
                    )
                    seeds = " ".join(f"{100 * value:.3f}" for value in result.per_seed[name]) if result else ""
                    lines.append(
                        [*head, key.shots if row.trains else 0, dataset, row.method, name,
                         round(100 * estimate.value, 3), low, high, table.counts.get(dataset),
                         len(result.seeds) if result else 0, seeds]
                    )  # fmt: skip
    return _write(LONG_COLUMNS, lines)


def _write(header: Sequence[str], lines: Iterable[Sequence[Value]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([csv_text(name) for name in header])
    for line in lines:
        writer.writerow([csv_text(value) if isinstance(value, str) else value for value in line])
    return buffer.getvalue()
