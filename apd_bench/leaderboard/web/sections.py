"""The parts of the page as HTML: readable without scripts, enhanced by them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from apd_bench.leaderboard.columns import (
    cost,
    estimate_columns,
    interval,
    missing_text,
    percent,
    rank_text,
    suspect_text,
)
from apd_bench.leaderboard.curves import HALVES, base_new_means, few_shot_families, pareto_front
from apd_bench.leaderboard.escape import file_name, html_text
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.tidy import Measurement
from apd_bench.leaderboard.wording import heading, legend_lines, notes_of, parameters, protocol_text, provenance_text
from apd_bench.published import pairs
from apd_bench.resources import baselines_path
from apd_bench.specs import format_eps

_MOST_RECORDS = 200
_LINKS = (
    ("boards", "Tables"), ("charts", "Charts"), ("heat", "Per dataset"), ("methods", "Methods"), ("how", "How to read"),
)  # fmt: skip


def header(title: str, warning: str, tables: Sequence[Table]) -> list[str]:
    """Title, warning, where the records come from, links, theme switch."""
    links = "".join(f"<li><a href='#{anchor}'>{text}</a></li>" for anchor, text in _LINKS)
    note = f"<p class='warning'><strong>{html_text(warning, 400)}</strong></p>" if warning else ""
    return [
        "<a class='skip' href='#main'>Skip to the tables</a>",
        f"<header><h1>{title}</h1>{note}<p>{html_text(provenance_text(tables), 600)}</p>",
        f"<nav aria-label='Sections'><ul>{links}</ul></nav>",
        "<button type='button' id='theme' hidden>Switch light / dark</button></header>",
    ]


def boards(tables: Sequence[Table]) -> list[str]:
    """One section per table, and the control that chooses between them."""
    options = "".join(f"<option value='{i}'>{html_text(heading(table))}</option>" for i, table in enumerate(tables))
    return [
        "<section id='boards'><h2>Tables</h2>",
        f"<p id='chooser' hidden><label>Table <select id='board'>{options}</select></label> "
        "<button type='button' id='link'>Copy a link to this view</button> <output id='copied'></output></p>",
        *(line for number, table in enumerate(tables) for line in _board(number, table)),
        "</section>",
    ]


def charts() -> list[str]:
    """Places for the charts of the chosen table; their numbers are in the tables."""
    return [
        "<section id='charts'><h2>Charts</h2>",
        "<noscript><p>The charts need scripts; the tables hold the same numbers.</p></noscript>",
        "<div class='charts'>",
        "<figure><figcaption>Clean against worst-case accuracy; the line is the Pareto front.</figcaption>"
        "<div class='canvas'><canvas id='scatter' role='img' aria-label='Clean against worst-case accuracy of the "
        "chosen table; the same numbers are in the table above'></canvas></div></figure>",
        "<figure><figcaption>Worst-case accuracy against the budget (eps times 255). A name in the legend switches its "
        "line; with four or fewer, bands are 95 % intervals.</figcaption>"
        "<div class='canvas'><canvas id='eps' role='img' aria-label='Worst-case accuracy against eps; the "
        "same numbers are in the tables of each budget'></canvas></div></figure>",
        "<figure id='shots-figure' hidden><figcaption>Worst-case accuracy against shots per class.</figcaption>"
        "<div class='canvas'><canvas id='shots' role='img' aria-label='Worst-case accuracy against shots'></canvas>"
        "</div></figure>",
        "</div></section>",
    ]


def heat_maps(tables: Sequence[Table]) -> list[str]:
    """Worst-case accuracy per dataset, coloured."""
    lines = ["<section id='heat'><h2>Per dataset, worst case</h2>"]
    for number, table in enumerate(tables):
        head = "".join(f"<th scope='col'>{html_text(name)} <small>n={table.counts.get(name, 0)}</small></th>"
                       for name in table.datasets)  # fmt: skip
        rows = []
        for row in table.rows:
            cells = "".join(_heat_cell(row, name) for name in table.datasets) + _mean_cell(row)
            rows.append(f"<tr><th scope='row'>{html_text(row.method)}</th>{cells}</tr>")
        lines.append(
            f"<div class='of-board scroll' data-board='{number}' tabindex='0' role='region' "
            f"aria-label='Per dataset: {html_text(heading(table))}'><table class='heat'><caption>"
            f"{html_text(heading(table))}: percent, 95 % interval, clean in brackets</caption>"
            f"<thead><tr><th scope='col'>method</th>{head}<th scope='col'>mean</th></tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
    return [*lines, "</section>"]


def few_shot(tables: Sequence[Table]) -> list[str]:
    """Nothing, or a table of worst-case accuracy by the number of shots."""
    lines: list[str] = []
    for family in few_shot_families(tables):
        head = "".join(f"<th scope='col'>{'all' if t.key.shots < 0 else t.key.shots}</th>" for t in family)
        body = []
        for method in sorted({row.method for table in family for row in table.ranked}):
            found = [next((row for row in table.ranked if row.method == method), None) for table in family]
            cells = "".join(f"<td>{percent(row.estimates['worst'].value) if row else '–'}</td>" for row in found)
            body.append(f"<tr><th scope='row'>{html_text(method)}</th>{cells}</tr>")
        shared = heading(replace(family[0], key=replace(family[0].key, shots=0)))
        caption = f"Worst case by shots per class: {shared}"
        lines.append(_scroll(caption, f"<tr><th scope='col'>method</th>{head}</tr>", body))
    return ["<section id='few-shot'><h2>Few-shot curves</h2>", *lines, "</section>"] if lines else []


def base_to_new(tables: Sequence[Table]) -> list[str]:
    """Nothing, or base and new classes side by side with their harmonic means."""
    lines: list[str] = []
    for title, means in base_new_means(tables):
        head = "".join(f"<th scope='col'>{name}</th>" for name in ("method", *HALVES))
        body = [
            f"<tr><th scope='row'>{html_text(method)}</th>"
            + "".join(f"<td>{percent(value)}</td>" for value in values)
            + "</tr>"
            for method, values in means
        ]
        lines.append(_scroll(title, f"<tr>{head}</tr>", body))
    return ["<section id='base-to-new'><h2>Base to new</h2>", *lines, "</section>"] if lines else []


def reported(tables: Sequence[Table]) -> list[str]:
    """Published beside measured numbers where the protocol agrees."""
    found = [pair for table in tables for pair in pairs(table)]
    lines = ["<section id='reported'><h2>Reported and reproduced</h2>"]
    if not found:
        return [*lines, "<p>No published number has the protocol, backbone, budget and attack of a table here.</p>",
                "</section>"]  # fmt: skip
    names = ("method", "dataset", "column", "reported", "reproduced", "95 %", "difference", "source", "known to differ")
    head = "".join(f"<th scope='col'>{name}</th>" for name in names)
    body = []
    for pair in found:
        values = (
            pair.method, pair.dataset, pair.column, f"{pair.published.value:g}", percent(pair.measured.value),
            interval(pair.measured), f"{pair.difference:+.1f}", f"{pair.published.source}, {pair.published.table}",
            pair.deviation,
        )  # fmt: skip
        body.append("<tr>" + "".join(f"<td>{html_text(value)}</td>" for value in values) + "</tr>")
    return [*lines, _scroll("Percent, means over seeds", f"<tr>{head}</tr>", body), "</section>"]


def examples(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Images before and after an attack, where a store has them."""
    if not found:
        return []
    lines = ["<section id='examples'><h2>Examples</h2>",
             "<p>Clean image, perturbation (magnified so that the budget spans the grey range), attacked image.</p>",
             "<div class='examples'>"]  # fmt: skip
    for item in found:
        images = "".join(
            f"<img src='data:image/png;base64,{html_text(item[name], 200_000)}' width='120' height='120' alt='{alt}'>"
            for name, alt in (("clean", "clean image"), ("change", "perturbation"), ("attacked", "attacked image"))
        )
        text = f"{item['method']}, {item['dataset']}, {item['attack']}: {item['label']}; "
        text += f"clean: {item['clean_prediction']}; attacked: {item['adversarial_prediction']}"
        lines.append(f"<figure>{images}<figcaption>{html_text(text)}</figcaption></figure>")
    return [*lines, "</div></section>"]


def methods(tables: Sequence[Table], measurements: Sequence[Measurement]) -> list[str]:
    """One part per method: what it is, recipe, card, how to repeat it, records."""
    mine: dict[str, list[Measurement]] = defaultdict(list)
    groups = {table.key.group for table in tables}
    for item in measurements:
        if item.group in groups:
            mine[item.method].append(item)
    lines = ["<section id='methods'><h2>Methods</h2>"]
    for name in sorted(mine):
        lines += _method(name, mine[name])
    return [*lines, "</section>"]


def how_to_read(tables: Sequence[Table], notes: Sequence[str]) -> list[str]:
    """The legend."""
    items = "".join(f"<li>{html_text(line, 600)}</li>" for line in legend_lines(tables, notes))
    return [f"<section id='how'><h2>How to read this</h2><ul>{items}</ul></section>"]


def method_anchor(name: str) -> str:
    """The id of a method's part of the page."""
    return f"method-{file_name(name)}"


def _board(number: int, table: Table) -> Iterable[str]:
    columns = estimate_columns(table)
    names = ["rank", "method", "learned", *columns, "95 %", "H", "samples", "seeds", "cells", "suspect"]
    head = "".join(f"<th scope='col'>{html_text(name)}</th>" for name in (*names, "train s", "attack s"))
    front = set(pareto_front(table.ranked))
    body = "".join(_board_row(table, row, columns, row.method in front) for row in table.rows)
    title = html_text(heading(table))
    yield (
        f"<div class='board of-board' id='board-{number}' data-board='{number}'><h3>{title}</h3>"
        f"<p>Threat: {html_text(table.key.threat.label)}. {html_text(protocol_text(table), 2000)}</p>"
        f"<div class='tools'></div><div class='scroll' tabindex='0' role='region' aria-label='{title}'>"
        f"<table class='data'><caption>{title}: percent; ◆ on the Pareto front of clean and worst; costs in seconds, "
        "train per fit, attack per sample</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    notes = [f"{row.method}: missing cells: {missing_text(row)}" for row in table.incomplete]
    notes += [f"{row.method}: {count}x {why}" for row in table.incomplete for why, count in row.failed.items()]
    notes += notes_of(table)
    if notes:
        yield "<ul class='notes'>" + "".join(f"<li>{html_text(note, 300)}</li>" for note in notes) + "</ul>"
    yield "</div>"


def _board_row(table: Table, row: Row, columns: Sequence[str], on_front: bool) -> str:
    link = f"<a href='#{method_anchor(row.method.partition(' [')[0])}'>{html_text(row.method)}</a>"
    front = " <abbr title='on the Pareto front of clean and worst'>◆</abbr>" if on_front else ""
    cells = [_cell(rank_text(row), row.rank if row.rank is not None else 9999), f"<th scope='row'>{link}{front}</th>",
             _cell(parameters(row), row.parameters or 0)]  # fmt: skip
    for name in columns:
        estimate = row.estimates.get(name)
        value = None if estimate is None else estimate.value
        title = f" title='95 %: {interval(estimate)}'" if estimate is not None else ""
        title += " class='worst'" if name == "worst" else ""
        cells.append(_cell(percent(value), -1 if value is None else round(100 * value, 3), title))
    worst = row.estimates.get("worst")
    cells += [
        _cell(interval(worst), -1 if worst is None or worst.low is None else round(100 * worst.low, 3)),
        _cell(percent(row.harmonic), -1 if row.harmonic is None else round(100 * row.harmonic, 3)),
        _cell(str(row.samples or "–"), row.samples),
        _cell(str(len(row.seeds)), len(row.seeds)),
        _cell(f"{row.done}/{row.planned}", row.done / max(row.planned, 1)),
        _cell(html_text(suspect_text(row)), max(row.suspect.values(), default=0) + row.collapsed),
        _cell(cost(row.train_seconds if row.trains else 0.0), row.train_seconds or 0),
        _cell(cost(row.sample_seconds), row.sample_seconds or 0),
    ]
    return f"<tr class='{'ranked' if row.complete else 'incomplete'}'>{''.join(cells)}</tr>"


def _cell(text: str, order: float, extra: str = "") -> str:
    return f"<td data-order='{order:g}'{extra}>{text}</td>"


def _heat_cell(row: Row, name: str) -> str:
    result = row.datasets.get(name)
    if result is None:
        return "<td class='none'>–</td>"
    worst, clean = result.estimates["worst"], result.estimates["clean"]
    seeds = "" if len(result.seeds) == len(row.seeds) else f" <small>{len(result.seeds)}/{len(row.seeds)} seeds</small>"
    return (
        f"<td style='--v:{100 * worst.value:.1f}%'>{percent(worst.value)} "
        f"<small>{interval(worst, 0)} [{percent(clean.value)}]</small>{seeds}</td>"
    )


def _mean_cell(row: Row) -> str:
    if not row.complete:
        return "<td class='none'>–</td>"
    worst, clean = row.estimates["worst"], row.estimates["clean"]
    return f"<td>{percent(worst.value)} <small>{interval(worst, 0)} [{percent(clean.value)}]</small></td>"


def _scroll(caption: str, head: str, body: Sequence[str]) -> str:
    return (
        f"<div class='scroll' tabindex='0' role='region' aria-label='{html_text(caption)}'><table><caption>"
        f"{html_text(caption)}</caption><thead>{head}</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _method(name: str, items: Sequence[Measurement]) -> list[str]:
    first = items[0]
    recipes = {item.variant: item for item in items}
    lines = [f"<article id='{method_anchor(name)}' class='method'><h3>{html_text(name)}</h3>",
             f"<p>{html_text(first.method_title)}</p>"]  # fmt: skip
    if first.paper:
        lines.append(f"<p>Paper: {html_text(first.paper, 400)}</p>")
    lines.append("<p>Repeat it (one record alone: <code>apd-bench show RECORD --as-command</code>):</p>")
    lines.append(f"<pre><code>{html_text(repeat_command(items), 2000)}</code></pre>")
    for variant in sorted(recipes, key=lambda name: (recipes[name].train_eps or 0.0, name)):
        recipe, budget = recipes[variant].recipe, recipes[variant].train_eps
        text = json.dumps(recipe.identity(), indent=1, sort_keys=True, default=str)
        trained = f", trained at {format_eps(budget)}" if budget is not None else ""
        lines.append(f"<details><summary>Recipe {variant[:6]}{trained}</summary><pre>{_escaped_lines(text)}</pre>")
        if recipe.sources:
            rows = "".join(f"<dt>{html_text(key)}</dt><dd>{html_text(why, 400)}</dd>"
                           for key, why in sorted(recipe.sources.items()))  # fmt: skip
            lines.append(f"<p>Where its numbers come from:</p><dl>{rows}</dl>")
        lines.append("</details>")
    card = baselines_path(file_name(name.partition(".")[0]), "CARD.md")
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        lines.append(f"<details><summary>Card</summary><pre class='card'>{_escaped_lines(text)}</pre></details>")
    return [*lines, *_records(items), "</article>"]


def repeat_command(items: Sequence[Measurement]) -> str:
    """The command that measures all of `items` (of one method) again."""

    def some(flag: str, values: Iterable[object]) -> str:
        found = sorted({str(value) for value in values}, key=lambda text: (len(text), text))
        return f" {flag} {','.join(found)}" if found else ""

    eps = sorted({item.threat.eps for item in items})
    limits = {dict(item.protocol)["test samples"] for item in items} - {"all"}
    suite = "" if items[0].group == "embedded" else " --suite blank"
    attacks = " ".join(f"'{attack}'" if "(" in attack else attack for attack in sorted({item.attack for item in items}))
    return (
        f"apd-bench run{suite}{some('--backbone', (item.backbone for item in items))} --methods {items[0].method}"
        f"{some('--datasets', (item.dataset for item in items))} --attacks {attacks}"
        f" --eps {','.join(format_eps(value, items[0].threat.norm) for value in eps)}"
        f"{some('--seeds', (item.seed for item in items if item.trains))}"
        f"{some('--shots', (item.shots for item in items if item.trains))}"
        f"{some('--limit', (text.split()[2] for text in limits)) if limits else ' --limit all'}"
        f"{''.join(f' --set {setting}' for setting in _settings(items))}"
    )


def _settings(items: Sequence[Measurement]) -> Iterable[str]:
    """What all of `items` share and no option but --set says."""
    protocols = [dict(item.protocol) for item in items]
    budgets = {item.train_eps for item in items} - {None}
    elsewhere = any(item.train_eps not in (None, item.threat.eps) for item in items)
    shared = (
        ("norm", {item.threat.norm for item in items}, "Linf"),
        ("space", {item.threat.space for item in items}, "model_input"),
        ("task", {item.task for item in items} - {"zero_shot"}, "few_shot"),
        ("train_eps", {format_eps(eps or 0.0) for eps in budgets} if elsewhere else set(), ""),
        ("precision", {protocol["precision"] for protocol in protocols}, "fp32"),
        ("resize", {protocol["resize"] for protocol in protocols}, "crop"),
        ("test_resize", {protocol.get("resize of test images", "") for protocol in protocols}, ""),
    )
    return [f"{name}={value}" for name, values, default in shared if len(values) == 1 for value in values - {default}]


def _records(items: Sequence[Measurement]) -> list[str]:
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("record", "dataset", "seed", "attack", "eps", "right",
                                                              "robust", "status"))  # fmt: skip
    body = []
    for item in items[:_MOST_RECORDS]:
        evidence = item.evidence
        counts = ("–", "–")
        if evidence is not None:
            counts = (
                f"{evidence.clean_right.sum()}/{len(evidence.ids)}",
                f"{evidence.robust.sum()}/{len(evidence.ids)}",
            )
        values = (item.id, item.dataset, item.seed if item.trains else "–", item.attack,
                  format_eps(item.threat.eps, item.threat.norm),
                  *counts, item.status)  # fmt: skip
        body.append("<tr>" + "".join(f"<td>{html_text(value)}</td>" for value in values) + "</tr>")
    more = f" (the first {_MOST_RECORDS})" if len(items) > _MOST_RECORDS else ""
    table = _scroll("Show one: apd-bench show RECORD", f"<tr>{head}</tr>", body)
    return [f"<details><summary>{len(items)} records{more}</summary>{table}</details>"]


def _escaped_lines(text: str) -> str:
    return "\n".join(html_text(line.replace(" ", "\u00a0"), 2000).replace("\u00a0", " ") for line in text.splitlines())
