"""The board of test-time defences: what papers print beside what an attacker leaves who expects the defence.

Such rows stand in no other table. A row is a defence over a method; all attacks but `adaptive` are made on the model
without its defence, which is the protocol of the papers, and the defence is judged on what they find.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apd_bench.core.registry import ATTACKS
from apd_bench.core.specs import ThreatModel, format_eps
from apd_bench.core.text import counted
from apd_bench.defences.parse import ADAPTIVE
from apd_bench.leaderboard import statistics
from apd_bench.leaderboard.columns import Value, percent, with_interval
from apd_bench.leaderboard.csv_file import write_csv
from apd_bench.leaderboard.escape import markdown_text as safe
from apd_bench.leaderboard.markdown import grid
from apd_bench.leaderboard.model import Hits, Protocol
from apd_bench.leaderboard.statistics import Estimate
from apd_bench.leaderboard.tidy import Measurement, attack_order
from apd_bench.leaderboard.wording import EMBEDDED_WARNING, threat_text

_DRAWS = 1999
_AFTER = "after "
_MARKED = "⚠"
_Cells = dict[tuple[str, str, int], Measurement]  # of one row, by set, column and seed

LEGEND = (
    "undefended: the model without its defence, under the same attacks as in the static columns; an empty cell was not "
    "measured.",
    "static: those attacks are made on the model without its defence, as papers do, and the defended model is judged.",
    "after NAME: what the members of the adaptive attack have left by then, by predictions that only select points.",
    "adaptive: the verdict after all members; of a random defence the majority of repeated predictions.",
    "worst: a sample counts only if it survives every static attack and the adaptive one, in all settings of it.",
    "gap: static (worst of several) less worst, in points: what an attacker who knows the defence takes.",
    "share: repeated predictions of a random defence that are right under the adaptive attack.",
    "F, B: image passes of one prediction, forwards and backwards, where an undefended one is 1 and 0; texts: class "
    "texts that it encodes; time: its seconds in those of an undefended prediction, one image at a time.",
    f"{_MARKED}: a diagnostic of the row fired; the reasons stand below the table.",
)


@dataclass(frozen=True)
class DefenceRow:
    """A defence over a method, with accuracies by column; no estimates unless every set and attack is there."""

    defence: str
    method: str
    estimates: Mapping[str, Estimate]
    gap: Estimate | None
    share: float | None
    cost: Mapping[str, float]
    marks: Mapping[str, int]
    done: int
    planned: int


@dataclass(frozen=True)
class DefenceTable:
    """Rows that may be compared: same backbone, threat, protocol, sets and static attacks.

    `settings`: cells of each setting of the adaptive attack, by the name of their row.
    """

    group: str
    title: str
    threat: ThreatModel
    protocol: Protocol
    datasets: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[DefenceRow, ...]
    settings: Mapping[str, Mapping[str, int]]
    samples: int


def defence_tables(measurements: Iterable[Measurement]) -> list[DefenceTable]:
    """The tables of all defended cells among `measurements`, beside the undefended ones; in a fixed order."""
    grouped: dict[tuple[object, ...], list[Measurement]] = defaultdict(list)
    for item in measurements:
        grouped[_key(item)].append(item)
    tables = [_table(items) for items in grouped.values() if any(item.cell.defence is not None for item in items)]
    return sorted(tables, key=lambda table: (table.group, table.title, table.threat.norm, table.threat.eps))


def _key(item: Measurement) -> tuple[object, ...]:
    cell, threat = item.cell, item.cell.threat
    return (cell.dataset.group, item.backbone_key, cell.fit.backbone.name, threat.norm, threat.eps, cell.task,
            cell.classes, Protocol.of(cell))  # fmt: skip


def _table(items: list[Measurement]) -> DefenceTable:
    defended = [item for item in items if item.cell.defence is not None]
    first = defended[0].cell
    rows: dict[tuple[str, str, str], _Cells] = defaultdict(dict)
    settings: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        if item.cell.defence is None and item.cell.threat.knowledge != "white_box":
            continue
        name, place = "", (item.cell.dataset.name, _column(item), item.seed)
        if item.cell.defence is not None:
            name = item.cell.defence.label
            if item.done and _column(item) == ADAPTIVE:
                settings[item.cell.attack.label][f"{name} over {item.method}"] += 1
        cells = rows[(name, item.method, item.variant)]
        cells[place] = _both(cells[place], item) if place in cells else item
    datasets = tuple(sorted({item.cell.dataset.name for item in defended}))
    statics = tuple(sorted({_column(item) for item in defended} - {ADAPTIVE}, key=attack_order))
    ran = {name for item in defended for name in item.members}
    members = tuple(name for name in ATTACKS.get(ADAPTIVE).defaults["order"] if name in ran)
    made = [
        _row(key, cells, rows.get(("", *key[1:]), {}), datasets, statics, members)
        for key, cells in sorted(rows.items())
        if key[0]
    ]
    robust = " (adversarially fine-tuned)" if first.fit.backbone.training == "robust" else ""
    undefended = tuple(f"undefended {name}" for name in statics)
    columns = ("clean", *undefended, *(f"static {name}" for name in statics), *(_AFTER + name for name in members))
    sizes = {item.cell.dataset.name: len(item.evidence.ids) for item in defended if item.evidence is not None}
    return DefenceTable(
        group=first.dataset.group,
        title=f"{first.fit.backbone.name}{robust}",
        threat=first.threat,
        protocol=Protocol.of(first),
        datasets=datasets,
        columns=(*columns, ADAPTIVE, "worst"),
        rows=tuple(made),
        settings={label: dict(sorted(settings[label].items())) for label in sorted(settings)},
        samples=sum(sizes.values()),
    )


def _column(item: Measurement) -> str:
    return ADAPTIVE if item.cell.attack.name == ADAPTIVE else item.attack


def _both(one: Measurement, two: Measurement) -> Measurement:
    """Two settings of the adaptive attack on the same samples as one: what survives both; not done if either is not."""
    if not (one.done and two.done and one.evidence is not None and two.evidence is not None):
        return two if one.done else one
    members = dict(two.members)
    for name, broken in one.members.items():
        members[name] = broken | members.get(name, broken)
    share = None if one.share is None or two.share is None else np.minimum(one.share, two.share)
    survived = replace(one.evidence, robust=one.evidence.robust & two.evidence.robust)
    marks = tuple(dict.fromkeys((*one.suspect, *two.suspect)))
    return replace(one, evidence=survived, members=members, share=share, suspect=marks)


def _row(
    key: tuple[str, str, str],
    cells: _Cells,
    bare: _Cells,
    datasets: Sequence[str],
    statics: Sequence[str],
    members: Sequence[str],
) -> DefenceRow:
    names = (*statics, ADAPTIVE)
    done = [item for item in cells.values() if item.done]
    planned = len(datasets) * len(names) * len({seed for _, _, seed in cells})
    marks = Counter(reason for item in done for reason in item.suspect)
    adaptive = [item for item in done if _column(item) == ADAPTIVE]
    shares = [float(item.share.mean()) for item in adaptive if item.share is not None]
    cost = {name: float(np.mean([item.prediction.get(name, 0.0) for item in adaptive]))
            for name in (adaptive[0].prediction if adaptive else ())}  # fmt: skip
    estimates: dict[str, Estimate] = {}
    gap = None
    if len(done) == planned:
        estimates, gap = _estimates(cells, bare, datasets, statics, members)
    return DefenceRow(key[0], key[1], estimates, gap, float(np.mean(shares)) if shares else None, cost, dict(marks),
                      len(done), planned)  # fmt: skip


def _estimates(
    cells: _Cells, bare: _Cells, datasets: Sequence[str], statics: Sequence[str], members: Sequence[str]
) -> tuple[dict[str, Estimate], Estimate | None]:
    """The accuracies of a complete row by column, and static less worst with the interval of their paired draws."""
    sources = {f"static {name}": (cells, name, "") for name in statics}
    sources |= {f"undefended {name}": (bare, name, "") for name in statics}
    sources |= {_AFTER + name: (cells, ADAPTIVE, name) for name in members}
    sources |= {"clean": (cells, ADAPTIVE, "clean"), ADAPTIVE: (cells, ADAPTIVE, "")}
    columns = {name: _hits(*source, datasets) for name, source in sources.items()}
    shapes = [hits.shape for hits in columns[ADAPTIVE]]
    columns = {name: parts for name, parts in columns.items() if [hits.shape for hits in parts] == shapes}
    static = [columns[f"static {name}"] for name in statics] or [columns["clean"]]
    columns["static"] = [np.logical_and.reduce(parts) for parts in zip(*static, strict=True)]
    columns["worst"] = [before & after for before, after in zip(columns["static"], columns[ADAPTIVE], strict=True)]
    panel = [np.stack(parts) for parts in zip(*columns.values(), strict=True)]
    draws = statistics.resampled_means(panel, _DRAWS)
    found = dict(zip(columns, statistics.estimates(panel, draws), strict=True))
    if not statics:
        return found, None
    value, by_name = found["static"].value - found["worst"].value, dict(zip(columns, draws, strict=True))
    return found, statistics.difference(by_name["static"], by_name["worst"], value, found["worst"].n)


def _hits(cells: _Cells, column: str, kind: str, datasets: Sequence[str]) -> list[Hits]:
    """By set who is right in a column, [seeds, samples]: see `_right`; nothing where a cell cannot say it."""
    parts = []
    for name in datasets:
        seeds = [_right(cells[place], kind) for place in sorted(cells) if place[:2] == (name, column)]
        known = [hits for hits in seeds if hits is not None]
        if not known or len(known) < len(seeds):
            return []
        parts.append(np.stack(known))
    return parts


def _right(item: Measurement, kind: str) -> Hits | None:
    """Who is right in a cell: "clean", "" under all of its attack, or as one of its members left them."""
    if item.evidence is None:
        return None
    if kind in ("", "clean"):
        return item.evidence.clean_right if kind else item.evidence.robust
    broken = item.members.get(kind)
    return None if broken is None else item.evidence.clean_right & ~broken


def render_defences(tables: Sequence[DefenceTable]) -> str:
    """The board as Markdown; the same tables give the same bytes."""
    lines = ["# apd-bench: test-time defences", ""]
    if any(table.group == "embedded" for table in tables):
        lines += [f"**{EMBEDDED_WARNING}**", ""]
    for table in tables:
        lines += defence_section(table)
    lines += ["## How to read this", "", *(f"- {safe(line, 600)}" for line in LEGEND)]
    return "\n".join(lines).rstrip() + "\n"


def defence_section(table: DefenceTable) -> list[str]:
    """One table: heading, threat, rows, and why rows are marked."""
    title, threat, about = defence_texts(table)
    lines = [f"## {safe(title, 200)}", "", safe(threat, 200), "", safe(about, 600), ""]
    header, body = defence_grid(table)
    cells = [[safe(cell) for cell in row] for row in body]
    lines += [*grid([safe(name) for name in header], cells, ("defence", "method")), ""]
    return [*lines, *(f"- {safe(line, 600)}" for line in defence_notes(table)), ""]


def defence_texts(table: DefenceTable) -> tuple[str, str, str]:
    """What a table is headed with, its threat, and how many samples of which sets it is about."""
    limit = "all" if table.protocol.limit is None else table.protocol.limit
    about = f"{', '.join(table.datasets)}: {limit} {table.protocol.split} samples each, {table.samples} in all."
    title = f"{table.title}, {table.threat.norm} {format_eps(table.threat.eps, table.threat.norm)}"
    return title, threat_text(ThreatModel(eps=table.threat.eps, norm=table.threat.norm)), about


def defence_notes(table: DefenceTable) -> list[str]:
    """With which settings the adaptive attack ran on which rows, and why rows are marked."""
    names = {f"{row.defence} over {row.method}" for row in table.rows}
    lines = []
    for label, cells in table.settings.items():
        whole = cells.keys() == names and len(set(cells.values())) == 1
        rows = ", ".join(f"{name} ({counted(number, 'cell')})" for name, number in cells.items())
        lines.append(f"{label}: {'all rows' if whole else rows}")
    return lines + [
        f"{_MARKED} {row.defence} over {row.method}: {reason} ({number} cells)"
        for row in table.rows
        for reason, number in sorted(row.marks.items())
    ]


def defence_grid(table: DefenceTable) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of a table, as people read them."""
    header = ["defence", "method", *table.columns, "gap", "share", "F", "B", "texts", "time", _MARKED, "cells"]
    body = []
    for row in table.rows:
        cells = [percent(row.estimates[name].value) if name in row.estimates else "–" for name in table.columns]
        if "worst" in row.estimates:
            cells[-1] = with_interval(row.estimates["worst"])
        gap = "–" if row.gap is None else with_interval(row.gap, "+")
        cost = [f"{row.cost[name]:.3g}" if name in row.cost else "–" for name in ("forwards", "backwards", "texts")]
        marks = str(sum(row.marks.values())) if row.marks else ""
        body.append([row.defence, row.method, *cells, gap, percent(row.share), *cost, _times(row), marks,
                     f"{row.done}/{row.planned}"])  # fmt: skip
    return header, body


def _times(row: DefenceRow) -> str:
    bare = row.cost.get("undefended_seconds")
    return f"{row.cost['seconds'] / bare:.1f}" if bare else "–"


def render_defences_csv(tables: Sequence[DefenceTable]) -> str:
    """One line per table, row and column of accuracies, with intervals; percent."""
    header = [
        "backbone", "norm", "eps", "defence", "method", "column", "accuracy", "low", "high", "samples", "forwards",
        "backwards", "texts", "seconds", "undefended seconds", "marks", "cells done", "cells planned",
    ]  # fmt: skip
    lines: list[list[Value]] = []
    for table in tables:
        for row in table.rows:
            cost = [round(row.cost[name], 6) if name in row.cost else None
                    for name in ("forwards", "backwards", "texts", "seconds", "undefended_seconds")]  # fmt: skip
            place: list[Value] = [table.title, table.threat.norm, round(table.threat.eps, 8), row.defence, row.method]
            rest = [*cost, "; ".join(sorted(row.marks)), row.done, row.planned]
            columns = [(name, row.estimates[name]) for name in table.columns if name in row.estimates]
            columns += [("gap", row.gap)] if row.gap is not None else []
            for name, estimate in columns:
                edges = [None if edge is None else round(100 * edge, 3) for edge in (estimate.low, estimate.high)]
                lines.append([*place, name, round(100 * estimate.value, 3), *edges, estimate.n, *rest])
    return write_csv(header, lines)
