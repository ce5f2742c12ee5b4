"""Boards as LaTeX tables (booktabs) to be included in a paper."""

from collections.abc import Sequence

from apd_bench.core.text import file_name
from apd_bench.leaderboard.columns import Column, interval, legend, percent, table_columns
from apd_bench.leaderboard.escape import latex_text
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.wording import EMBEDDED_WARNING, heading


def render_latex(tables: Sequence[Table], group: str) -> str:
    """One `table` environment per table; needs the package booktabs."""
    lines = ["% Made by `apd-bench report --format tex`. Needs \\usepackage{booktabs}."]
    for table in tables:
        lines += ["", *_table(table, group)]
    return "\n".join(lines) + "\n"


def _table(table: Table, group: str) -> list[str]:
    columns = table_columns(table.attacks, "tex")
    seeds = f"{len(table.seeds)} seeds" if table.seeds else "nothing trained"
    caption = [
        f"{heading(table)}.",
        f"Accuracy in percent, mean over {len(table.datasets)} datasets ({sum(table.counts.values())} test samples, "
        f"{seeds}), with 95 % bootstrap intervals.",
        *legend("tex"),
        *([EMBEDDED_WARNING] if table.embedded else ()),
    ]
    label = file_name(f"{group}-{heading(table)}").lower()
    return [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{' '.join(latex_text(line, 400) for line in caption)}}}",
        f"\\label{{tab:{label}}}",
        f"\\begin{{tabular}}{{{''.join('l' if column.left else 'r' for column in columns)}}}",
        "\\toprule",
        " & ".join(latex_text(column.heading) for column in columns) + " \\\\",
        "\\midrule",
        *(" & ".join(_cell(table, row, column) for column in columns) + " \\\\" for row in table.ranked),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]


def _cell(table: Table, row: Row, column: Column) -> str:
    """The value of a column; in bold the best accuracies, in the worst case all that cannot be told from the best."""
    estimate = column.estimate(row) if column.estimate else None
    if estimate is None:
        return latex_text(column.shown(table, row, "tex"))
    text = percent(estimate.value)
    best = max(other.estimates[column.key].value for other in table.ranked)
    if estimate.value == best or (column.key == "worst" and row.rank == 1):
        text = f"\\textbf{{{text}}}"
    edges = interval(estimate) if "tex" in column.spread else "–"
    return text if edges == "–" else f"{text} {{\\scriptsize {edges}}}"
