"""Numbers from the literature, with their source and protocol: listed, and paired with ours only where all agrees.

A published number stands beside a measured one only when task, dataset, shots, backbone with its standard weights,
budget, attack with its options, resize and the use of the whole test set are the same. It never replaces one.
"""

import csv
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, get_type_hints

from apd_bench.attacks.parse import parse_attack
from apd_bench.core.errors import CorruptFile, UserError, unknown_name
from apd_bench.core.identity import counted
from apd_bench.core.package_data import baselines_path
from apd_bench.core.specs import MethodRecipe
from apd_bench.core.toml import tomllib
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.statistics import Estimate
from apd_bench.methods.recipes import suite_recipe
from apd_bench.suites import load_suite

_TASKS = {"few-shot": "few_shot", "cross-dataset": "cross_dataset", "base-to-new": "base_to_new"}


@dataclass(frozen=True)
class Published:
    """One number of one table of one paper; `value` in percent, `eps_255` is eps times 255, `stat` mean or std."""

    source: str
    table: str
    task: str
    metric: str
    attack: str
    eps_255: float
    backbone: str
    shots: int
    stat: str
    method: str
    dataset: str
    value: float


@dataclass(frozen=True)
class Reproduction:
    """A published number and the measured one that it may stand beside, with what is known to differ all the same."""

    published: Published
    method: str
    dataset: str
    column: str
    measured: Estimate
    deviation: str

    @property
    def difference(self) -> float:
        """Measured minus published, in points."""
        return 100 * self.measured.value - self.published.value


@lru_cache(maxsize=1)
def load_published() -> tuple[Published, ...]:
    """All published numbers in the order of the file; raises CorruptFile when it is not what it should be."""
    path = baselines_path("published", "results.csv")
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            kinds = get_type_hints(Published)
            if reader.fieldnames != [*kinds]:
                raise ValueError(f"its columns are {reader.fieldnames}")
            return tuple(Published(**{name: kind(line[name]) for name, kind in kinds.items()}) for line in reader)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptFile(f"{path} cannot be read: {error}.", hint="Reinstall apd-bench.") from error


@lru_cache(maxsize=1)
def protocols() -> Mapping[str, Any]:
    """What is known of each source and table: titles, notes, what must agree, names here, known deviations.

    Under `formats`, how checkpoints are evaluated by their papers: `attack`, `source`, and `methods` as published.
    """
    path = baselines_path("published", "protocols.toml")
    try:
        found: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path} cannot be read: {error}.", hint="Reinstall apd-bench.") from error


def select(**wanted: str | None) -> list[Published]:
    """The numbers whose fields contain the wanted text (any case); raises UnknownName when a text is in none.

    `select(source="fap", table="Table 15", method="FAP")`. A table matches as a whole name, so `Table 1` is not 15.
    """
    chosen = list(load_published())
    for name, text in wanted.items():
        if text is None:
            continue
        values = [str(getattr(item, name)).lower() for item in chosen]
        exact, low = name in ("table", "method", "dataset"), text.lower()
        kept = [
            item for item, value in zip(chosen, values, strict=True) if value == low or (low in value and not exact)
        ]
        if not kept:
            known = sorted({str(getattr(item, name)) for item in chosen})
            raise unknown_name(f"published {name}", text, known, command="apd-bench published")
        chosen = kept
    return chosen


def about(source: str, table: str) -> dict[str, Any]:
    """Title, notes, description and the reason against comparing, as far as recorded."""
    found = dict(protocols()["sources"].get(source, {}))
    return found | {key: value for key, value in _table(source, table).items() if key not in ("source", "table")}


def reproductions(table: Table) -> list[Reproduction]:
    """Every published number that may stand beside a number of `table`, in the order of the file."""
    if table.key.protocol.limit is not None:
        return []
    ours = {row.method: row for row in table.rows}
    rows = {name: ours[method] for name, method in protocols()["methods"].items() if method in ours}
    return [pair for item in _candidates(table, rows) for pair in _pair(item, table, rows[item.method])]


def claims(table: Table, row: Row, methods: Sequence[str]) -> list[Reproduction]:
    """The published numbers of `methods` that were tested as `row` was, on whatever their prompts were trained.

    A checkpoint does not say how it was trained. One that is tested on a part of the images says so as a deviation.
    """
    limit = table.key.protocol.limit
    part = f"here on at most {limit} test images" if limit else ""
    return [
        replace(pair, deviation="; ".join(filter(None, (pair.deviation, part))))
        for item in _candidates(table, methods)
        for pair in _pair(item, table, row, as_trained=False)
    ]


def _candidates(table: Table, methods: Container[str]) -> list[Published]:
    """The means of `methods` on the backbone of a table; none where its numbers may stand beside no published one."""
    key, threat = table.key, table.key.threat
    papers = {f"{ours}/openai": name for name, known in protocols()["backbones"].items() for ours in known}
    kind = (key.training, key.group, key.protocol.split, key.protocol.precision, threat.norm, threat.knowledge)
    if key.backbone not in papers or kind != ("standard", "benchmark", "test", "fp32", "Linf", "white_box"):
        return []
    wanted = (papers[key.backbone], "mean")
    return [item for item in load_published() if (item.backbone, item.stat) == wanted and item.method in methods]


def _pair(item: Published, table: Table, row: Row, *, as_trained: bool = True) -> Iterator[Reproduction]:
    """The number beside that of `row`, where all agrees; unless `as_trained`, only how both were tested has to."""
    match = _table(item.source, item.table).get("match")
    if match is None or item.dataset not in row.datasets:
        return
    key, resize, tested = table.key, table.key.protocol.resize, table.key.protocol.test_resize
    task, _, classes = item.task.partition(":")
    same = [
        _TASKS.get(task) == match.get("task"),
        not as_trained or key.task == match.get("task"),
        classes == "" or classes == getattr(key, "classes", "all"),
        not row.trains or item.shots == key.shots,
        match.get("source_dataset", "") == key.trained_on or not row.trains,
        match.get("resize", resize) == resize or not row.trains,
        match.get("test_resize", tested) == tested,
        item.attack == "none" or abs(item.eps_255 / 255 - key.threat.eps) < 1e-9,
        all(eps is None or abs(match.get("train_eps_255", -1) / 255 - eps) < 1e-9 for eps in row.train_eps),
    ]
    if not all(same):
        return
    column = str(match.get("attacks", {}).get(item.attack, ""))
    with suppress(UserError):
        column = column if column in ("", "clean") else parse_attack(column).label
    estimate = row.datasets[item.dataset].estimates.get(column)
    if estimate is not None:
        ours = protocols()["deviations"].get(item.method)
        known = filter(None, (ours, *(_changed(recipe, match) for recipe in row.recipes if row.trains)))
        yield Reproduction(item, row.method, item.dataset, column, estimate, "; ".join(known))


def _changed(recipe: MethodRecipe, match: Mapping[str, Any]) -> str:
    """The settings in which `recipe` is not that of the suite that follows the paper."""
    if "suite" not in match:
        return ""
    suite = load_suite(match["suite"])
    ours, theirs = (_flat(counted(one)) for one in (recipe, suite_recipe(recipe.name, suite.recipe, suite.recipes)))
    differ = [f"{name} {ours.get(name, 'unset')}, there {theirs.get(name, 'unset')}"
              for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]  # fmt: skip
    more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
    return f"not the recipe of the suite {suite.name}: {'; '.join(differ[:3])}{more}" if differ else ""


def _flat(identity: Mapping[str, object]) -> dict[str, object]:
    parts = [(name, value if isinstance(value, Mapping) else {"": value}) for name, value in identity.items()]
    return {
        f"{name}.{option}".strip("."): json.dumps(value, sort_keys=True, default=str)  # a list equals a tuple
        for name, options in parts
        for option, value in options.items()
    }


def _table(source: str, table: str) -> Mapping[str, Any]:
    for entry in protocols()["tables"]:
        if (entry["source"], entry["table"]) == (source, table):
            return dict(entry)
    return {}


def pivot(items: Sequence[Published]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a table with one column per dataset, in the order of the paper, and the mean over them."""
    datasets = list(dict.fromkeys(item.dataset for item in items))
    lines: dict[tuple[str, ...], dict[str, float]] = {}
    for item in items:
        eps = "–" if item.attack == "none" else f"{item.eps_255:g}/255"
        key: tuple[str, ...] = (
            *(item.source, item.table, item.task, item.backbone, str(item.shots)),
            *(item.method, item.attack, eps, item.stat),
        )
        lines.setdefault(key, {})[item.dataset] = item.value
    header = ["source", "table", "task", "backbone", "shots", "method", "attack", "eps", "stat", *datasets, "mean"]
    body = []
    for key, values in lines.items():
        full = len(values) == len(datasets) and key[-1] == "mean"
        mean = f"{sum(values.values()) / len(values):.2f}" if full else ""
        body.append([*key, *(f"{values[name]:g}" if name in values else "" for name in datasets), mean])
    return header, body
