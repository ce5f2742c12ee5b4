"""Boards as JSON: everything the tables say, as numbers, for programs. Shares are in [0, 1]."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from apd_bench.leaderboard.escape import plain
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.statistics import Estimate
from apd_bench.leaderboard.wording import heading

SCHEMA = 1


def render_json(tables: Sequence[Table], group: str, notes: Sequence[str] = ()) -> str:
    """The tables of one group as JSON text with sorted keys."""
    content = {
        "schema": SCHEMA,
        "group": group,
        "notes": list(notes),
        "tables": [plain_table(table) for table in tables],
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def plain_table(table: Table) -> dict[str, Any]:
    """One table as JSON types."""
    key, threat = table.key, table.key.threat
    return {
        "heading": heading(table),
        "embedded": table.embedded,
        "backbone": {"name": key.backbone, "training": key.training, "key": key.backbone_key},
        "threat": {
            "norm": threat.norm, "eps": threat.eps, "eps_255": round(threat.eps * 255, 6),
            "knowledge": threat.knowledge, "space": threat.space, "source": threat.source,
        },
        "task": key.task,
        "trained_on": key.trained_on,
        "classes": key.classes,
        "shots": key.shots,
        "protocol": dict(key.protocol),
        "seeds": list(table.seeds),
        "datasets": {name: table.counts.get(name, 0) for name in table.datasets},
        "attacks": list(table.attacks),
        "distance_attacks": list(table.distance_attacks),
        "versions": list(table.versions),
        "commits": list(table.commits),
        "dates": list(table.dates),
        "notes": list(table.notes),
        "rows": [_row(row) for row in table.rows],
    }  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    return {
        "method": plain(row.method),
        "title": plain(row.title),
        "paper": plain(row.paper, 300),
        "recipe": row.variant,
        "rank": row.rank,
        "parameters": row.parameters,
        "means": _estimates(row.estimates),
        "harmonic": _rounded(row.harmonic),
        "datasets": {
            name: {
                "estimates": _estimates(result.estimates),
                "seeds": list(result.seeds),
                "per_seed": {
                    column: [_rounded(value) for value in values] for column, values in result.per_seed.items()
                },
            }
            for name, result in row.datasets.items()
        },
        "median_distances": {name: _rounded(value) for name, value in row.distances.items()},
        "seeds": list(row.seeds) if row.trains else [],
        "cells": {"done": row.done, "planned": row.planned, "missing": dict(row.missing)},
        "suspect": {plain(why, 200): count for why, count in row.suspect.items()},
        "collapsed_fits": row.collapsed,
        "failed": {plain(why, 200): count for why, count in row.failed.items()},
        "cost": {
            "train_seconds_per_fit": _rounded(row.train_seconds, 1),
            "attack_seconds": _rounded(row.attack_seconds, 1),
            "attack_seconds_per_sample": _rounded(row.sample_seconds, 3),
            "forwards_per_sample": _rounded(row.forwards, 2),
            "backwards_per_sample": _rounded(row.backwards, 2),
        },
        "notes": [plain(note, 200) for note in row.notes],
    }


def _estimates(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        name: {"value": _rounded(item.value), "low": _rounded(item.low), "high": _rounded(item.high), "n": item.n}
        for name, item in estimates.items()
    }


def _rounded(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else round(value, digits)
