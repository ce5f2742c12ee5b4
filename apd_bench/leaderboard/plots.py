"""Figures for papers: the board, curves over eps, clean against worst case, per-dataset heat map, spread over seeds.

matplotlib is an extra; it is imported when a figure is made. The same tables give the same vector file: no dates, fixed
fonts and a fixed salt for the ids inside an SVG.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apd_bench.core.errors import MissingPrerequisite, UsageError
from apd_bench.core.files import atomic_write
from apd_bench.core.text import file_name, plain
from apd_bench.leaderboard.curves import eps_curve, eps_families, pareto_front
from apd_bench.leaderboard.looks import Look, look, looks
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.wording import heading

Axes = Any  # of matplotlib, whose types are there only where the extra is installed
Figure = Any
Styles = Mapping[str, Look]
_UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {"Software": None}, "svg": {"Date": None}}
FORMATS = tuple(_UNDATED)
_FEW = 4  # methods whose bands and legend fit into the axes
_SETTINGS: Any = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "svg.hashsalt": "apd-bench", "svg.fonttype": "none", "pdf.fonttype": 42, "figure.dpi": 200, "savefig.bbox": "tight",
}  # fmt: skip
_REFERENCE: dict[str, Any] = {"color": "#888888", "linestyle": "--", "linewidth": 0.8}


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
    styles = looks(tables)
    with matplotlib.rc_context(_SETTINGS):
        for family in KINDS[kind][0](tables):
            content = io.BytesIO()
            _figure(kind, family, styles).savefig(content, format=form, metadata=_UNDATED[form])
            written.append(out / f"{kind}-{file_name(heading(*family))}.{form}")
            atomic_write(written[-1], content.getvalue())
    if not written:
        raise UsageError(f"No table has what the figure '{kind}' needs: a complete row.", hint="See: apd-bench report")
    return written


def _figure(kind: str, family: Sequence[Table], styles: Styles) -> Figure:
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=_size(kind, family), layout="constrained")
    axes = figure.add_subplot()
    KINDS[kind][1](axes, family, styles)
    note = "embedded tiny CLIP, not ViT-B\n" if family[0].embedded else ""
    axes.set_title(f"{note}{plain(heading(*family), 120)}", fontsize=6)
    return figure


def _size(kind: str, family: Sequence[Table]) -> tuple[float, float]:
    """Inches: a column of a paper, more where there are many methods."""
    methods = len(looks(family))
    if kind == "board":
        return 6.8, 1.3 + 0.22 * methods
    if kind == "heatmap":
        return max(3.4, 1.2 + 0.45 * len(family[0].datasets)), max(2.6, 1.0 + 0.17 * methods)
    return (3.4, 2.6) if methods <= _FEW else (5.0, 3.2)


def _board(axes: Axes, family: Sequence[Table], styles: Styles) -> None:
    """For each method clean accuracy, each attack and worst, the first and the last with their intervals."""
    table = family[0]
    rows = table.ranked
    places = range(len(rows))
    for name, colour, mark, size in (("clean", "#56b4e9", "o", 4), ("worst", "#0072b2", "D", 5)):
        points = [row.estimates[name] for row in rows]
        axes.hlines(places, [100 * (point.low or point.value) for point in points],
                    [100 * (point.high or point.value) for point in points], color=colour, linewidth=1.6)  # fmt: skip
        axes.plot(_percents(rows, name), places, color=colour, marker=mark, markersize=size, linestyle="", label=name,
                  zorder=3)  # fmt: skip
    for name, mark in zip(table.attacks, "|x+1234", strict=False):
        axes.plot(_percents(rows, name), places, color="#555555", marker=mark, markersize=5, linestyle="",
                  label=plain(name, 30))  # fmt: skip
    for value in _percents([row for row in rows if row.method == "zero_shot"], "worst"):
        axes.axvline(value, **_REFERENCE, label="worst of zero_shot", zorder=0)
    axes.set_yticks(places, [plain(row.method, 30) for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel=f"accuracy, % (mean over {len(table.datasets)} datasets; bars: 95 %)", xlim=(0, 100))
    _legend(axes, _FEW + 1)


def _eps(axes: Axes, family: Sequence[Table], styles: Styles) -> None:
    methods = list(looks(family))
    widest = max(table.key.threat.eps * 255 for table in family)
    for place, method in enumerate(methods):
        points = eps_curve(family, method)
        shift = 0.0 if len(methods) <= _FEW else widest * 0.06 * (place / (len(methods) - 1) - 0.5)
        at = [point.at + shift for point in points]
        values = [100 * point.value for point in points]
        style = _drawn(styles[method])
        axes.plot(at, values, label=plain(method, 30), markersize=3, linewidth=1, **style)
        known = [(x, point) for x, point in zip(at, points, strict=True) if point.low is not None]
        low, high = ([100 * (getattr(point, edge) or 0.0) for _, point in known] for edge in ("low", "high"))
        if len(methods) <= _FEW:
            axes.fill_between([x for x, _ in known], low, high, color=style["color"], alpha=0.15, linewidth=0)
        else:  # bands of many methods hide each other; side by side, bars do not
            axes.vlines([x for x, _ in known], low, high, color=style["color"], alpha=0.6, linewidth=0.6)
    axes.set(xlabel="eps × 255", ylabel="worst-case accuracy, %", ylim=(0, None))
    _legend(axes, len(methods))


def _pareto(axes: Axes, family: Sequence[Table], styles: Styles) -> None:
    rows = {row.method: row for row in family[0].ranked}
    for method, row in rows.items():
        clean, worst = row.estimates["clean"], row.estimates["worst"]
        spread = {
            name: [[100 * (item.value - (item.low or 0))], [100 * ((item.high or 0) - item.value)]]
            for name, item in (("xerr", clean), ("yerr", worst))
            if item.low is not None and item.high is not None
        }
        style = _drawn(styles[method]) | {"linestyle": ""}
        axes.errorbar(100 * clean.value, 100 * worst.value, **spread, capsize=1, markersize=4, elinewidth=0.5,
                      label=plain(method, 30), **style)  # fmt: skip
    front = [rows[method] for method in pareto_front(family[0].ranked)]
    axes.plot(_percents(front, "clean"), _percents(front, "worst"), **_REFERENCE, zorder=0)
    axes.set(xlabel="clean accuracy, %", ylabel="worst-case accuracy, %")
    _legend(axes, len(rows))


def _heatmap(axes: Axes, family: Sequence[Table], _: Styles) -> None:
    table = family[0]
    rows = [row for row in table.rows if row.datasets]
    shares = [
        [100 * row.datasets[name].estimates["worst"].value if name in row.datasets else float("nan")
         for name in table.datasets]
        + [100 * row.estimates["worst"].value if row.complete else float("nan")]
        for row in rows
    ]  # fmt: skip
    image = axes.imshow(shares, cmap="cividis", vmin=0, aspect="auto")
    for down, line in enumerate(shares):
        for across, share in enumerate(line):
            if share == share:
                light = image.norm(share) < 0.5
                axes.text(across, down, f"{share:.0f}", ha="center", va="center", fontsize=6,
                          color="white" if light else "black")  # fmt: skip
    axes.axvline(len(table.datasets) - 0.5, color="white", linewidth=2)
    names = [*(plain(name, 16) for name in table.datasets), "mean"]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), [plain(row.method, 30) for row in rows])
    axes.set_xlabel("worst-case accuracy, %")
    axes.grid(visible=False)


def _seeds(axes: Axes, family: Sequence[Table], _: Styles) -> None:
    table = family[0]
    rows = [row for row in table.ranked if row.trains]
    for number, seed in enumerate(table.seeds):
        means = [
            sum(100 * row.datasets[name].per_seed["worst"][number] for name in table.datasets) / len(table.datasets)
            for row in rows
        ]
        style = _drawn(look(number)) | {"linestyle": ""}
        axes.plot(range(len(rows)), means, **style, markersize=3, label=f"seed {seed}")
    for place, value in enumerate(_percents(rows, "worst")):
        axes.plot([place - 0.25, place + 0.25], [value, value], color="black", linewidth=1)
    for row in table.ranked:
        if not row.trains:
            axes.axhline(100 * row.estimates["worst"].value, **_REFERENCE, label=plain(row.method, 20))
    axes.set_xticks(range(len(rows)), [plain(row.method, 20) for row in rows], rotation=45, ha="right")
    axes.set(ylabel="worst-case accuracy, %", ylim=(0, None))
    axes.legend(fontsize=6)


def _percents(rows: Sequence[Row], name: str) -> list[float]:
    return [100 * row.estimates[name].value for row in rows]


def _drawn(style: Look) -> dict[str, Any]:
    return {"color": style.colour, "marker": style.mark, "linestyle": style.dash}


def _legend(axes: Axes, methods: int) -> None:
    """Inside the axes while it is small, beside them otherwise."""
    if methods <= _FEW:
        axes.legend(fontsize=6)
    else:
        axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _one_each(tables: Sequence[Table]) -> list[list[Table]]:
    return [[table] for table in tables if table.ranked]


KINDS: dict[
    str, tuple[Callable[[Sequence[Table]], list[list[Table]]], Callable[[Axes, Sequence[Table], Styles], None]]
] = {
    "board": (_one_each, _board),
    "eps": (lambda tables: [one for one in eps_families(tables) if any(table.ranked for table in one)], _eps),
    "pareto": (_one_each, _pareto),
    "heatmap": (_one_each, _heatmap),
    "seeds": (lambda tables: [[table] for table in tables if any(row.trains for row in table.ranked)], _seeds),
}
