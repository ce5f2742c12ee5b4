"""Boards as LaTeX tables (booktabs) to be included in a paper."""

from __future__ import annotations

from collections.abc import Sequence

from apd_bench.leaderboard.columns import estimate_columns, percent
from apd_bench.leaderboard.escape import file_name, latex
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.wording import EMBEDDED_WARNING, heading, parameters


def render_latex(tables: Sequence[Table], group: str) -> str:
    """One `table` environment per table; needs the package booktabs."""
    lines = ["% Made by `apd-bench report --format tex`. Needs \\usepackage{booktabs}."]
    for table in tables:
        lines += ["", *_table(table, group)]
    return "\n".join(lines) + "\n"


def _table(table: Table, group: str) -> list[str]:
    columns = estimate_columns(table)
    names = [latex(name) for name in columns]
    body = [_line(table, row, columns) for row in table.ranked]
    seeds = f"{len(table.seeds)} seeds" if table.seeds else "nothing trained"
    caption = (
        f"{latex(heading(table), 160)}. Accuracy in percent, mean over {len(table.datasets)} datasets "
        f"({sum(table.counts.values())} test samples, {seeds}); worst: per-sample worst case over the attacks, "
        f"with 95\\,\\% bootstrap interval; H: harmonic mean of clean and worst. "
        "Methods that cannot be told apart share a rank."
    )
    if table.embedded:
        caption += f" {latex(EMBEDDED_WARNING, 400)}"
    label = file_name(f"{group}-{heading(table)}").lower()
    return [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{caption}}}",
        f"\\label{{tab:{label}}}",
        f"\\begin{{tabular}}{{rl{'r' * (len(columns) + 2)}}}",
        "\\toprule",
        " & ".join(["", "method", "learned", *names, "H"]) + " \\\\",
        "\\midrule",
        *body,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]


def _line(table: Table, row: Row, columns: Sequence[str]) -> str:
    cells = []
    for name in columns:
        estimate = row.estimates[name]
        text = percent(estimate.value)
        top = max(other.estimates[name].value for other in table.ranked)
        text = f"\\textbf{{{text}}}" if estimate.value == top else text
        if name == "worst" and estimate.low is not None and estimate.high is not None:
            text += f" {{\\scriptsize {100 * estimate.low:.1f}--{100 * estimate.high:.1f}}}"
        cells.append(text)
    learned = parameters(row).replace(",", "\\,").replace("–", "--")
    return " & ".join([str(row.rank), latex(row.method), learned, *cells, percent(row.harmonic)]) + " \\\\"
