"""Boards as CSV: one line per method and table, and one line per method, dataset and column. Percent, UTF-8."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from apd_bench.leaderboard.columns import Column, Value, rounded, table_columns
from apd_bench.leaderboard.escape import csv_text
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.statistics import Estimate
from apd_bench.leaderboard.tidy import attack_order


def render_csv(tables: Sequence[Table]) -> str:
    """The summary rows of all tables; attacks that a table lacks are empty there."""
    return write_csv(*summary_rows(tables))


def summary_rows(tables: Sequence[Table]) -> tuple[list[str], list[list[Value]]]:
    """Header and rows of the summary: one row a method and table, accuracies in percent with their intervals."""
    columns = table_columns(sorted({attack for table in tables for attack in table.attacks}, key=attack_order), "csv")
    header = [name for column in columns for name in _names(column)]
    return header, [
        [value for column in columns for value in _values(column, table, row)] for table in tables for row in table.rows
    ]


def render_long_csv(tables: Sequence[Table]) -> str:
    """One line per table, method, dataset and column ("clean", each attack, "worst"), with every seed's value."""
    place = table_columns((), "long")
    own = ("dataset", "method", "attack", "accuracy", "low", "high", "samples", "seeds", "per seed")
    return write_csv([*(column.key for column in place), *own], _long_lines(tables, place))


def _long_lines(tables: Sequence[Table], place: Sequence[Column]) -> Iterator[list[Value]]:
    for table in tables:
        for row in table.rows:
            head = [column.number(table, row) for column in place]
            for dataset, result in ((name, row.datasets[name]) for name in table.datasets if name in row.datasets):
                for name, estimate in result.estimates.items():
                    seeds = " ".join(f"{100 * value:.3f}" for value in result.per_seed[name])
                    share = rounded(estimate.value, 3, 100)
                    numbers = [share, *_edges(estimate), table.counts.get(dataset), len(result.seeds)]
                    yield [*head, dataset, row.method, name, *numbers, seeds]


def _names(column: Column) -> list[str]:
    return [column.key, f"{column.key} low", f"{column.key} high"] if column.estimate else [column.key]


def _values(column: Column, table: Table, row: Row) -> list[Value]:
    return [column.number(table, row), *(_edges(column.estimate(row)) if column.estimate else ())]


def _edges(estimate: Estimate | None) -> list[Value]:
    return [None, None] if estimate is None else [rounded(edge, 3, 100) for edge in (estimate.low, estimate.high)]


def write_csv(header: Sequence[str], lines: Iterable[Sequence[Value]]) -> str:
    """A header and lines as CSV text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([csv_text(name) for name in header])
    for line in lines:
        writer.writerow([csv_text(value) if isinstance(value, str) else value for value in line])
    return buffer.getvalue()
