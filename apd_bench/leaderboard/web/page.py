"""The page itself: everything it needs is inside it, and its content security policy forbids every request."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apd_bench.core.registry import ATTACKS
from apd_bench.core.specs import format_eps
from apd_bench.core.text import file_name, plain, plain_lines
from apd_bench.leaderboard import columns, wording
from apd_bench.leaderboard.comparison import heads, worst_differences
from apd_bench.leaderboard.csv_file import render_csv
from apd_bench.leaderboard.curves import eps_curve, eps_families, few_shot_families, pareto_front, shots_curve
from apd_bench.leaderboard.defences import LEGEND, DefenceTable, defence_grid, defence_notes, defence_texts
from apd_bench.leaderboard.json_file import render_json
from apd_bench.leaderboard.latex_file import render_latex
from apd_bench.leaderboard.listings import distances, listings
from apd_bench.leaderboard.looks import Look, looks
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.tidy import Measurement
from apd_bench.leaderboard.tries import Tuning
from apd_bench.leaderboard.web import findings, methods
from apd_bench.leaderboard.web.charts import Chart, curves, scatter

_HERE = Path(__file__).parent
_MOST_RECORDS = 40  # shown of each method; `apd-bench show` has every one
_MAIN = ("rank", "method", "family", "clean", "", "worst", "worst interval", "gain", "parameters")  # "": the attacks
_PHONE = ("rank", "method", "clean", "worst", "gain")


class _Whole(str):
    """Text that the page shows with its lines and in full length."""

    __slots__ = ()


def render_page(
    tables: Sequence[Table],
    group: str,
    *,
    measurements: Iterable[Measurement] = (),
    examples: Iterable[Mapping[str, Any]] = (),
    tuning: Mapping[str, Tuning] | None = None,
    notes: Sequence[str] = (),
    defended: Sequence[DefenceTable] = (),
) -> str:
    """The page for the tables of one group; the same records give the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    script = (_HERE / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.filters |= {"whole": lambda text: _Whole(plain_lines(text)), "html": Markup}
    said = (wording.heading, wording.threat_text, wording.protocol_text, wording.notes_of, distances, pareto_front)
    cells = (columns.percent, columns.interval, columns.missing_text, columns.failed_text, methods.anchor,
             methods.paper_link, format_eps, _tip, interval_scale, board_columns)  # fmt: skip
    environment.globals |= {function.__name__: function for function in (*said, *cells)}
    environment.globals |= {"most": _MOST_RECORDS}
    styles = looks(tables)
    family = {id(table): alike for alike in eps_families(tables) for table in alike}
    chosen = [item for item in measurements if item.cell.dataset.group == group]
    return environment.get_template("page.html").render(
        question=findings.QUESTION,
        lead=findings.lead(tables),
        title=wording.board_title(tables, group),
        policy=_policy(script),
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=script,
        warning=wording.EMBEDDED_WARNING,
        provenance=wording.provenance_text(tables),
        tables=tables,
        facets=_facets(tables),
        findings=[findings.findings(table, family[id(table)]) for table in tables],
        charts=_charts(tables, styles),
        listings=listings(tables),
        defended=[(*defence_texts(table), *defence_grid(table), defence_notes(table)) for table in defended],
        defence_legend=LEGEND,
        pairs=pairs(item for item in examples if item["group"] == group),
        methods=list(methods.describe(chosen, tuning or {}, styles)),
        downloads=_downloads(tables, group, notes),
        cite=wording.citation(tables),
        legend=wording.legend_lines(tables, "html", notes),
        data={
            "first": _largest(tables),
            "boards": [_numbers(table) for table in tables],
            "facets": _facets(tables),
            "heads": heads("", "")[:6],
        },
    )


def pairs(examples: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Examples of one image under one attack, zero-shot first; single ones only where no image has several methods."""
    alike: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for item in examples:
        key = tuple(item[name] for name in ("backbone", "dataset", "attack", "sample"))
        alike[key].setdefault(item["method"], item)  # of several seeds the first
    found = [
        [by[name] for name in sorted(by, key=lambda one: (one != "zero_shot", one))] for _, by in sorted(alike.items())
    ]
    return [items for items in found if len(items) > 1] or found


def _shown(value: object) -> object:
    """What an expression of the template becomes before it is escaped."""
    return value if isinstance(value, _Whole) or hasattr(value, "__html__") else plain(value, 200)


def _tip(column: columns.Column) -> str:
    """What the head of a column explains."""
    if column.key == "method":
        return "the name that the command line takes; it leads to recipe, sources and records."
    name = column.key.partition("(")[0]
    what = f" ({ATTACKS.get(name).title})" if name in ATTACKS.names() else ""
    return column.help or f"percent right under the attack {column.key} alone{what}."


def board_columns(table: Table) -> list[tuple[columns.Column, str]]:
    """The columns of the board in their order on the page, each with its classes: `more` is shown on request.

    What a phone has no room for is `wide`. The column of reconstructions is a tag beside the name of the method.
    """
    known = {column.key: column for column in columns.table_columns(table.attacks, "html")}
    order = [key for place in _MAIN for key in ([place] if place else table.attacks)]
    rest = [key for key in known if key not in order and key != "reconstruction"]
    return [
        (known[key], " ".join([*(["more"] if key in rest else []), *(["wide"] if key not in _PHONE else [])]))
        for key in [*order, *rest]
    ]


def interval_scale(table: Table) -> tuple[float | None, float]:
    """Where zero-shot stands in the intervals of worst that are drawn in the rows, and where their scale ends."""
    worst = {row.method: row.estimates["worst"] for row in table.ranked}
    zero = worst["zero_shot"].value if "zero_shot" in worst else None
    return zero, max([0.01, *(item.high or item.value for item in worst.values())])


def _largest(tables: Sequence[Table]) -> int:
    """The place of the board with the most verdicts, which the page opens with."""
    verdicts = [sum(table.counts.values()) * len(table.seeds) * len(table.rows) for table in tables]
    return verdicts.index(max(verdicts)) if verdicts else 0


def _policy(script: str) -> str:
    """A content security policy that lets this script run and nothing be fetched."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _downloads(tables: Sequence[Table], group: str, notes: Sequence[str]) -> list[tuple[str, str, str]]:
    """The files of the board inside the page: what they are called, their names, their contents as addresses."""
    files = (
        ("CSV", "csv", "text/csv", render_csv(tables)),
        ("JSON", "json", "application/json", render_json(tables, group, notes)),
        ("LaTeX", "tex", "application/x-tex", render_latex(tables, group)),
    )
    return [
        (title, f"{file_name(group)}.{ending}", f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}")
        for title, ending, kind, text in files
    ]


def _facets(tables: Sequence[Table]) -> dict[str, list[str]]:
    """What tells the tables apart, by the name of a row of buttons: the value of each table, in order.

    Budget and backbone are always there, the rest where it differs; what no name tells apart gets a number.
    """
    keys = [table.key for table in tables]
    threats = {(key.threat.norm, key.threat.knowledge, key.threat.source) for key in keys}
    tasks = {"base_to_new": "base-to-new", "cross_dataset": "cross-dataset"}
    found = {
        "task": [f"{tasks.get(key.task, 'few-shot')}{f', {key.classes} classes' if key.classes != 'all' else ''}"
                 f"{f' from {key.trained_on}' if key.trained_on else ''}" for key in keys],
        "budget": [format_eps(key.threat.eps, key.threat.norm) if len(threats) == 1 else key.threat.label
                   for key in keys],
        "backbone": [f"{key.backbone}{' (robust)' if key.training == 'robust' else ''}" for key in keys],
        "shots": [{-1: "all images", 0: "none"}.get(key.shots, str(key.shots)) for key in keys],
        "sets": [", ".join(table.datasets[:3]) + (" …" if len(table.datasets) > 3 else "") for table in tables],
    }  # fmt: skip
    kept = {name: values for name, values in found.items() if name in ("budget", "backbone") or len({*values}) > 1}
    alike = [tuple(values[place] for values in kept.values()) for place in range(len(tables))]
    if len({*alike}) < len(alike):
        kept["number"] = [str(alike[:place].count(key) + 1) for place, key in enumerate(alike)]
    return {name: [plain(value) for value in values] for name, values in kept.items()}


def _charts(tables: Sequence[Table], styles: Mapping[str, Look]) -> list[tuple[str, Chart]]:
    """Every chart with the numbers of the tables that it belongs to."""
    place = {id(table): index for index, table in enumerate(tables)}
    found: list[tuple[str, Chart | None]] = [(str(place[id(table)]), scatter(table.ranked, styles)) for table in tables]
    kinds: tuple[tuple[str, list[list[Table]], Callable[..., Any], str, str], ...] = (
        ("eps", eps_families(tables), eps_curve, "eps × 255", "the budget; at 0 stands clean accuracy"),
        ("shots", few_shot_families(tables), shots_curve, "shots per class", "the shots per class"),
    )
    for name, families, curve, title, against in kinds:
        for family in families:
            lines = {method: curve(family, method) for method in styles}
            numbers = " ".join(str(place[id(table)]) for table in family)
            caption = f"Worst-case accuracy against {against}."
            found.append((numbers, curves(name, caption, (title, "worst, %"), lines, styles)))
    return [(numbers, chart) for numbers, chart in found if chart is not None]


def _numbers(table: Table) -> dict[str, Any]:
    """What two chosen methods are compared with, in percent: means, sets, and the paired intervals of worst."""
    rows = table.ranked
    names = ["clean", *table.attacks, "worst"]
    return {
        "methods": [plain(row.method) for row in rows],
        "typed": [plain(shlex.quote(row.method), 200) for row in rows],
        "columns": [plain(name) for name in names],
        "datasets": [plain(name) for name in table.datasets],
        "means": [_percents(row.estimates[name].value for name in names) for row in rows],
        "sets": [_percents(row.datasets[name].estimates["worst"].value for name in table.datasets) for row in rows],
        "pairs": [[_percents(pair) for pair in line] for line in worst_differences(table).tolist()] if rows else [],
    }


def _percents(shares: Iterable[float]) -> list[float]:
    return [round(100 * share, 2) for share in shares]
