"""The page itself: everything it needs is inside it, and its content security policy forbids every request."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apd_bench.leaderboard.curves import eps_curve, eps_families, few_shot_families, pareto_front
from apd_bench.leaderboard.escape import html_text, plain
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.web import sections
from apd_bench.leaderboard.wording import EMBEDDED_WARNING, board_title, heading

if TYPE_CHECKING:
    from apd_bench.leaderboard.boards import Boards

_HERE = Path(__file__).parent
_SCRIPTS = ("vendor/jquery.min.js", "vendor/datatables.min.js", "vendor/chart.min.js", "page.js")
_STYLES = ("vendor/datatables.min.css", "page.css")


def render_page(tables: Sequence[Table], group: str, boards: Boards) -> str:
    """The page for the tables of one group; the same records give the same bytes."""
    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    styles = [(_HERE / name).read_text(encoding="utf-8") for name in _STYLES]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    title = html_text(board_title(tables, group))
    body = [
        *sections.header(title, EMBEDDED_WARNING if any(table.embedded for table in tables) else "", tables),
        "<main id='main'>",
        *sections.boards(tables),
        *sections.charts(),
        *sections.heat_maps(tables),
        *sections.base_to_new(tables),
        *sections.few_shot(tables),
        *sections.reported(tables),
        *sections.examples([item for item in boards.examples if item.get("group") == group]),
        *sections.methods(tables, boards.measurements),
        *sections.how_to_read(tables, boards.notes),
        "</main>",
        "<footer><p>Made by <code>apd-bench report --format html</code>. Nothing on this page asks the network for "
        "anything. It carries jQuery, DataTables and Chart.js, all under the MIT licence.</p></footer>",
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>{title}</title>",
            *(f"<style>{style}</style>" for style in styles),
            "</head>",
            "<body>",
            *body,
            f'<script type="application/json" id="data">{_safe_json(chart_data(tables))}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body>",
            "</html>",
            "",
        ]
    )


def chart_data(tables: Sequence[Table]) -> dict[str, Any]:
    """What the curves and the scatter plot show, in percent, by the number of the table."""
    place = {id(table): index for index, table in enumerate(tables)}
    methods = sorted({row.method for table in tables for row in table.ranked})
    curves = {}
    for kind, families in (("eps", eps_families(tables)), ("shots", few_shot_families(tables))):
        for family in families:
            lines = {name: _line(family, name, kind) for name in methods}
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


def _line(family: Sequence[Table], method: str, kind: str) -> list[list[float | None]]:
    if kind == "eps":
        points = [(point.at, point.value, point.low, point.high) for point in eps_curve(family, method)]
    else:
        points = []
        for table in family:
            for row in table.ranked:
                if row.method == method and table.key.shots > 0:
                    worst = row.estimates["worst"]
                    points.append((float(table.key.shots), worst.value, worst.low, worst.high))
    return [[round(at, 4), *(_percent(value) for value in values)] for at, *values in points]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _safe_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
