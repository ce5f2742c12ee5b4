"""Figures for papers: curves over eps, clean against worst case, per-dataset heat map, spread over seeds.

matplotlib is an extra; it is imported when a figure is made. The same tables give the same vector file: no dates, fixed
fonts and a fixed salt for the ids inside an SVG.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from apd_bench.errors import MissingPrerequisite, UsageError
from apd_bench.files import atomic_write
from apd_bench.leaderboard.curves import eps_curve, eps_families, pareto_front
from apd_bench.leaderboard.escape import file_name, plain
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.wording import heading

Axes = Any  # of matplotlib, whose types are there only where the extra is installed
Figure = Any
FORMATS = ("pdf", "png", "svg")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f")
_MARKS = "osD^vP*X"
_SETTINGS: Any = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "svg.hashsalt": "apd-bench", "svg.fonttype": "none", "pdf.fonttype": 42, "figure.dpi": 200, "savefig.bbox": "tight",
}  # fmt: skip


def draw(kind: str, tables: Sequence[Table], out: Path, form: str = "pdf") -> list[Path]:
    """One file per table (per family of budgets for "eps") in the folder `out`; returns them in order.

    Raises UsageError for an unknown kind or format or when no table has what the figure needs, MissingPrerequisite
    without matplotlib.
    """
    if kind not in KINDS:
        raise UsageError(f"There is no figure '{kind}'.", hint=f"Figures: {', '.join(KINDS)}.")
    if form not in FORMATS:
        raise UsageError(f"There is no figure format '{form}'.", hint=f"Formats: {', '.join(FORMATS)}.")
    try:
        import matplotlib
    except ImportError as error:
        raise MissingPrerequisite(
            "Figures need matplotlib, which is not installed.", hint="pip install 'apd-bench[plots]'"
        ) from error
    matplotlib.use("agg", force=False)
    written: list[Path] = []
    with matplotlib.rc_context(_SETTINGS):
        for family in KINDS[kind][0](tables):
            figure = _figure(KINDS[kind][1], family)
            path = out / f"{kind}-{file_name(heading(family[0]))}.{form}"
            atomic_write(path, _bytes(figure, form))
            written.append(path)
    if not written:
        raise UsageError(f"No table has what the figure '{kind}' needs: a complete row.", hint="See: apd-bench report")
    return written


def _figure(paint: Callable[[Axes, Sequence[Table]], None], family: Sequence[Table]) -> Figure:
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(3.4, 2.6), layout="constrained")
    axes = figure.add_subplot()
    paint(axes, family)
    note = "embedded tiny CLIP, not ViT-B\n" if family[0].embedded else ""
    axes.set_title(f"{note}{plain(heading(family[0]), 120)}", fontsize=6)
    return figure


def _bytes(figure: Figure, form: str) -> bytes:
    import io

    buffer = io.BytesIO()
    undated: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None},
        "svg": {"Date": None},
        "png": {"Software": None},
    }
    figure.savefig(buffer, format=form, metadata=undated[form])
    return buffer.getvalue()


def _eps(axes: Axes, family: Sequence[Table]) -> None:
    for place, method in enumerate(_methods(family)):
        points = eps_curve(family, method)
        colour = _COLOURS[place % len(_COLOURS)]
        at = [point.at for point in points]
        axes.plot(at, [100 * point.value for point in points], color=colour, label=plain(method, 30),
                  marker=_MARKS[place % len(_MARKS)], markersize=3, linewidth=1)  # fmt: skip
        banded = [point for point in points if point.low is not None and point.high is not None]
        axes.fill_between(
            [point.at for point in banded], [100 * (point.low or 0) for point in banded],
            [100 * (point.high or 0) for point in banded], color=colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
    axes.set(xlabel="eps × 255", ylabel="worst-case accuracy, %", ylim=(0, None))
    axes.legend(fontsize=6)


def _pareto(axes: Axes, family: Sequence[Table]) -> None:
    rows = {row.method: row for row in family[0].ranked}
    for place, method in enumerate(_methods(family)):
        clean, worst = rows[method].estimates["clean"], rows[method].estimates["worst"]
        spread = {
            name: [[100 * (item.value - (item.low or 0))], [100 * ((item.high or 0) - item.value)]]
            for name, item in (("xerr", clean), ("yerr", worst))
            if item.low is not None and item.high is not None
        }
        axes.errorbar(100 * clean.value, 100 * worst.value, **spread, color=_COLOURS[place % len(_COLOURS)], capsize=1,
                      marker=_MARKS[place % len(_MARKS)], markersize=4, linewidth=0.6, linestyle="",
                      label=plain(method, 30))  # fmt: skip
    front = [rows[method].estimates for method in pareto_front(list(rows.values()))]
    axes.plot([100 * item["clean"].value for item in front], [100 * item["worst"].value for item in front],
              color="#888888", linestyle="--", linewidth=0.8, zorder=0)  # fmt: skip
    axes.set(xlabel="clean accuracy, %", ylabel="worst-case accuracy, %")
    axes.legend(fontsize=6)


def _heatmap(axes: Axes, family: Sequence[Table]) -> None:
    table = family[0]
    rows = [row for row in table.rows if row.datasets]
    shares = [
        [100 * row.datasets[name].estimates["worst"].value if name in row.datasets else float("nan")
         for name in table.datasets]
        for row in rows
    ]  # fmt: skip
    image = axes.imshow(shares, cmap="cividis", vmin=0, aspect="auto")
    for down, line in enumerate(shares):
        for across, share in enumerate(line):
            if share == share:
                light = image.norm(share) < 0.5
                axes.text(across, down, f"{share:.0f}", ha="center", va="center", fontsize=6,
                          color="white" if light else "black")  # fmt: skip
    axes.set_xticks(range(len(table.datasets)), [plain(name, 16) for name in table.datasets], rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), [plain(row.method, 30) for row in rows])
    axes.grid(visible=False)


def _seeds(axes: Axes, family: Sequence[Table]) -> None:
    table = family[0]
    rows = [row for row in table.ranked if row.trains]
    for place, row in enumerate(rows):
        by_seed = zip(*(row.datasets[name].per_seed["worst"] for name in table.datasets), strict=True)
        values = [100 * sum(shares) / len(shares) for shares in by_seed]
        axes.plot(
            [place] * len(values), values, _MARKS[0], color=_COLOURS[place % len(_COLOURS)], markersize=3, alpha=0.8
        )
        axes.plot([place - 0.2, place + 0.2], [sum(values) / len(values)] * 2, color="black", linewidth=1)
    axes.set_xticks(range(len(rows)), [plain(row.method, 20) for row in rows], rotation=30, ha="right")
    axes.set(ylabel="worst-case accuracy by seed, %")


def _methods(family: Sequence[Table]) -> list[str]:
    return sorted({row.method for table in family for row in table.ranked})


def _one_each(tables: Sequence[Table]) -> list[list[Table]]:
    return [[table] for table in tables if table.ranked]


def _budgets(tables: Sequence[Table]) -> list[list[Table]]:
    return [family for family in eps_families(tables) if any(table.ranked for table in family)]


def _trained(tables: Sequence[Table]) -> list[list[Table]]:
    return [[table] for table in tables if any(row.trains for row in table.ranked)]


KINDS: dict[str, tuple[Callable[[Sequence[Table]], list[list[Table]]], Callable[[Axes, Sequence[Table]], None]]] = {
    "eps": (_budgets, _eps),
    "pareto": (_one_each, _pareto),
    "heatmap": (_one_each, _heatmap),
    "seeds": (_trained, _seeds),
}
