"""The page itself: everything it needs is inside it, and its content security policy forbids every request."""

import base64
import hashlib
import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from apd_bench.core.identity import counted
from apd_bench.core.package_data import baselines_path
from apd_bench.core.specs import format_eps
from apd_bench.core.text import file_name, plain, plain_lines
from apd_bench.leaderboard import columns, command, wording
from apd_bench.leaderboard.curves import Point, eps_curve, eps_families, few_shot_families, pareto_front, shots_curve
from apd_bench.leaderboard.listings import distances, listings
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.tidy import Measurement
from apd_bench.leaderboard.wording import heading

_HERE = Path(__file__).parent
_SCRIPTS = ("vendor/jquery.min.js", "vendor/datatables.min.js", "vendor/chart.min.js", "page.js")
_STYLES = ("vendor/datatables.min.css", "page.css")
_MOST_RECORDS = 200  # shown of each method


class _Whole(str):
    """Text that the page shows with its lines and in full length."""

    __slots__ = ()


def render_page(
    tables: Sequence[Table],
    group: str,
    *,
    measurements: Iterable[Measurement] = (),
    examples: Iterable[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page for the tables of one group; the same records give the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.filters["whole"] = lambda text: _Whole(plain_lines(text))
    said = (wording.heading, wording.threat_text, wording.protocol_text, wording.notes_of)
    cells = (columns.table_columns, columns.percent, columns.interval, columns.missing_text, columns.failed_text)
    environment.globals |= {function.__name__: function for function in (*said, *cells, pareto_front, distances)}
    environment.globals |= {"anchor": _anchor, "format_eps": format_eps, "most": _MOST_RECORDS}
    return environment.get_template("page.html").render(
        title=wording.board_title(tables, group),
        policy=_policy(scripts),
        styles=[(_HERE / name).read_text(encoding="utf-8") for name in _STYLES],
        scripts=scripts,
        warning=wording.EMBEDDED_WARNING,
        provenance=wording.provenance_text(tables),
        tables=tables,
        listings=listings(tables),
        examples=[item for item in examples if item.get("group") == group],
        methods=list(_methods(item for item in measurements if item.cell.dataset.group == group)),
        legend=wording.legend_lines(tables, "html", notes),
        data=chart_data(tables),
    )


def _shown(value: object) -> object:
    """What an expression of the template becomes before it is escaped."""
    return value if isinstance(value, _Whole) or hasattr(value, "__html__") else plain(value, 200)


def _anchor(method: str) -> str:
    return f"method-{file_name(method)}"


def _methods(items: Iterable[Measurement]) -> Iterator[dict[str, Any]]:
    """One part of the page per method: its records, recipes, card, and the commands that repeat it."""
    mine: dict[str, list[Measurement]] = defaultdict(list)
    for item in items:
        mine[item.method].append(item)
    for name, records in sorted(mine.items()):
        recipes = {item.variant: item.cell.fit for item in records}
        card = baselines_path(file_name(name.partition(".")[0]), "CARD.md")
        yield {
            "name": name,
            "records": records,
            "commands": [shlex.join(command.words(part)) for part in command.crossings(item.cell for item in records)],
            "recipes": [
                {
                    "name": variant[:6],
                    "train_eps": fit.train_eps,
                    "spec": fit.method,
                    "text": json.dumps(counted(fit.method), indent=1, sort_keys=True, default=str),
                }
                for variant, fit in sorted(recipes.items(), key=lambda one: (one[1].train_eps or 0.0, one[0]))
            ],
            "card": card.read_text(encoding="utf-8") if card.is_file() else "",
        }


def _policy(scripts: Sequence[str]) -> str:
    """A content security policy that lets these scripts run and nothing be fetched."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def chart_data(tables: Sequence[Table]) -> dict[str, Any]:
    """What the curves and the scatter plot show, in percent, by the number of the table."""
    place = {id(table): index for index, table in enumerate(tables)}
    methods = sorted({row.method for table in tables for row in table.ranked})
    curves = {}
    kinds = (("eps", eps_families(tables), eps_curve), ("shots", few_shot_families(tables), shots_curve))
    for kind, families, curve in kinds:
        for family in families:
            lines = {name: [_line(point) for point in curve(family, name)] for name in methods}
            for table in family:
                curves[f"{kind}{place[id(table)]}"] = {plain(name): line for name, line in lines.items() if line}
    return {
        "methods": [plain(name) for name in methods],
        "boards": [
            {
                "title": plain(heading(table), 200),
                "points": [
                    {"method": plain(row.method), "x": _percent(row.estimates["clean"].value),
                     "y": _percent(row.estimates["worst"].value)}
                    for row in table.ranked
                ],
                "front": [plain(name) for name in pareto_front(table.ranked)],
            }
            for table in tables
        ],
        "curves": curves,
    }  # fmt: skip


def _line(point: Point) -> list[float | None]:
    return [round(point.at, 4), *map(_percent, point[1:])]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)
