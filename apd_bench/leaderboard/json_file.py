"""Boards as JSON: everything the tables say, as numbers, for programs. Shares are in [0, 1]."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from apd_bench.core.specs import ATTACK_SEED, SPACE
from apd_bench.core.text import json_text, plain
from apd_bench.leaderboard.columns import Column, rounded, table_columns
from apd_bench.leaderboard.defences import DefenceTable
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.statistics import Estimate
from apd_bench.leaderboard.wording import heading

SCHEMA = 2
_DEEP = 4  # a line for each row of each table


def render_json(tables: Sequence[Table], group: str, notes: Sequence[str] = ()) -> str:
    """The tables of one group as JSON text with sorted keys."""
    content = {"schema": SCHEMA, "group": group, "notes": list(notes), "tables": [_table(table) for table in tables]}
    return json_text(content, _DEEP) + "\n"


def render_defences_json(tables: Sequence[DefenceTable]) -> str:
    """The board of test-time defences of one group as JSON text with sorted keys; the gap as a share, too."""
    content = {"schema": SCHEMA, "group": tables[0].group, "tables": [_defence_table(table) for table in tables]}
    return json_text(content, _DEEP) + "\n"


def _defence_table(table: DefenceTable) -> dict[str, Any]:
    return {
        "backbone": table.title,
        "threat": {"norm": table.threat.norm, "eps": table.threat.eps, "eps_255": round(table.threat.eps * 255, 6)},
        "protocol": {**asdict(table.protocol), "attack_seed": ATTACK_SEED},
        "datasets": list(table.datasets),
        "samples": table.samples,
        "adaptive": {plain(label, 300): dict(cells) for label, cells in table.settings.items()},
        "rows": [
            {
                "defence": row.defence,
                "method": row.method,
                "accuracy": _estimates({name: row.estimates[name] for name in table.columns if name in row.estimates}),
                "gap": None if row.gap is None else _estimates({"gap": row.gap})["gap"],
                "share": rounded(row.share, 6),
                "prediction_cost": {name: rounded(value, 6) for name, value in row.cost.items()},
                "marks": {plain(why, 300): count for why, count in row.marks.items()},
                "cells": {"done": row.done, "planned": row.planned},
            }
            for row in table.rows
        ],
    }


def _table(table: Table) -> dict[str, Any]:
    """One table as JSON types."""
    key, threat = table.key, table.key.threat
    columns = table_columns(table.attacks, "json")
    return {
        "heading": heading(table),
        "embedded": table.embedded,
        "backbone": {"name": key.backbone, "training": key.training, "key": key.backbone_key},
        "threat": {
            "norm": threat.norm, "eps": threat.eps, "eps_255": round(threat.eps * 255, 6),
            "knowledge": threat.knowledge, "space": SPACE, "source": threat.source or "",
        },
        "task": key.task,
        "trained_on": key.trained_on,
        "classes": key.classes,
        "shots": key.shots,
        "protocol": {**asdict(key.protocol), "attack_seed": ATTACK_SEED},
        "seeds": list(table.seeds),
        "datasets": {name: table.counts.get(name, 0) for name in table.datasets},
        "attacks": list(table.attacks),
        "distance_attacks": list(table.distance_attacks),
        "versions": list(table.versions),
        "commits": list(table.commits),
        "dates": list(table.dates),
        "notes": list(table.notes),
        "rows": [_row(table, row, columns) for row in table.rows],
    }  # fmt: skip


def _row(table: Table, row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    recipe = row.recipes[0]
    values = {column.key.replace(" ", "_"): column.value(table, row) for column in columns}
    return {
        **{name: plain(value) if isinstance(value, str) else rounded(value, 6) for name, value in values.items()},
        "title": plain(recipe.title or recipe.name),
        "paper": plain(recipe.paper, 300),
        "means": _estimates(row.estimates if row.gain is None else {**row.estimates, "gain": row.gain}),
        "datasets": {
            name: {
                "estimates": _estimates(result.estimates),
                "seeds": list(result.seeds),
                "per_seed": {
                    column: [rounded(value, 6) for value in values] for column, values in result.per_seed.items()
                },
            }
            for name, result in row.datasets.items()
        },
        "median_distances": {name: rounded(value, 6) for name, value in row.distances.items()},
        "seeds": list(row.seeds) if row.trains else [],
        "missing": dict(row.missing),
        "suspect": {plain(why, 200): count for why, count in row.suspect.items()},
        "failed": {plain(why, 200): count for why, count in row.failed.items()},
        "notes": [plain(note, 200) for note in row.notes],
    }


def _estimates(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        name: {**{edge: rounded(getattr(item, edge), 6) for edge in ("value", "low", "high")}, "n": item.n}
        for name, item in estimates.items()
    }
