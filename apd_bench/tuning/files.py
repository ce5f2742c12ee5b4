"""What a search leaves behind: the suite with the tuned recipes, and the tables of gains and of best of k tries."""

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from apd_bench.core.files import atomic_write
from apd_bench.core.specs import Suite, format_eps
from apd_bench.leaderboard.markdown import grid
from apd_bench.runner.selection import describe
from apd_bench.tuning.choice import Tuned, expected_best
from apd_bench.tuning.search import Search
from apd_bench.tuning.space import nested

_FROM_SUITE = ("backbones", "recipe")  # what a search may have been told on top of its suite


def overlay(parent: Suite, parent_name: str, search: Search, results: Sequence[Tuned], rule: str) -> str:
    """The suite `parent` with the best recipe of each method, as TOML; `parent_name` is how the file names it."""
    table: dict[str, Any] = {
        "extends": parent_name,
        "name": f"{parent.name.removesuffix('-untuned')}-tuned",
        "notes": facts(search, results, rule),
    }
    table["title"] = f"{parent.title or parent.name}; recipes tuned with {_tries(results)} tries each"
    resolved, own = describe(search.suite), describe(parent)
    table |= {key: resolved[key] for key in _FROM_SUITE if key in resolved and resolved[key] != own.get(key)}
    recipes = {item.method: nested(item.configurations[item.best]) for item in results if item.best}
    sources = {
        f"recipes.{item.method}.{option}": f"tuned, {_tries(results)} trials, score {item.scores[item.best]:.1f}"
        for item in results
        for option in item.configurations[item.best]
    }
    return toml({**table, **({"recipes": recipes} if recipes else {}), **({"sources": sources} if sources else {})})


def facts(search: Search, results: Sequence[Tuned], rule: str) -> str:
    """How the recipes were chosen, in a sentence."""
    suite = search.suite
    kept = [item.method for item in results if not item.best]
    return (
        f"{_tries(results)} tries of each of {len(results)} methods on {', '.join(suite.backbones)}, trained on "
        f"{', '.join(suite.datasets)} ({suite.shots[0]} shots, seed {', '.join(map(str, suite.seeds))}); "
        f"scored on validation images alone, at most {suite.limit or 'all'} a set, by the {rule} rule over clean and "
        f"{', '.join(suite.attacks)} accuracy at {format_eps(suite.eps[0], suite.norm)}. "
        f"The recipe as it stands was best for: {', '.join(kept) or 'none'}."
    )


def gains(results: Sequence[Tuned]) -> list[dict[str, Any]]:
    """A row for each method, best tuned score first: default, tuned, gain, and the best try."""
    rows = []
    for item in sorted(results, key=lambda one: -one.scores[one.best]):
        best, default = item.best, item.scores.get(0)
        rows.append(
            {
                "method": item.method,
                "default": None if default is None else round(default, 2),
                "tuned": round(item.scores[best], 2),
                "gain": None if default is None else round(item.scores[best] - default, 2),
                **{
                    f"{name}_{which}": round(values[number], 2) if number in values else None
                    for which, number in (("default", 0), ("tuned", best))
                    for name, values in (("clean", item.clean), ("robust", item.robust))
                },
                "trial": best,
                "configuration": json.dumps(item.configurations[best]),
            }
        )
    return rows


def curves(results: Sequence[Tuned]) -> list[dict[str, Any]]:
    """The expected best of k tries of each method with its interval, and the rank among the methods, for every k."""
    rows = []
    for k in range(1, _tries(results) + 1):
        best = {item.method: expected_best(list(item.scores.values()), k) for item in results}
        for place, name in enumerate(sorted(best, key=lambda name: -best[name].expected)):
            numbers = {part: round(value, 2) for part, value in best[name]._asdict().items()}
            rows.append({"k": k, "method": name, **numbers, "rank": place + 1})
    return rows


def command(search: Search, suite: str, rule: str) -> str:
    """The command that makes the search again."""
    asked = search.suite
    lists = {
        "--backbone": asked.backbones, "--methods": asked.methods, "--datasets": asked.datasets,
        "--attacks": asked.attacks, "--eps": [format_eps(eps, asked.norm) for eps in asked.eps],
        "--seeds": asked.seeds, "--shots": asked.shots, "--limit": [asked.limit or "all"], "--trials": [search.trials],
    }  # fmt: skip
    words = [word for flag, values in lists.items() for word in (flag, ",".join(map(str, values)))]
    return shlex.join(["apd-bench", "tune", suite, *words, "--rule", rule])


def write_files(
    folder: Path, parent: Suite, parent_name: str, search: Search, results: Sequence[Tuned], rule: str
) -> list[Path]:
    """Writes the tuned suite, the page, and its two tables as CSV into `folder`; their paths."""
    file = Path(parent_name).expanduser()
    below = os.path.relpath(file, folder) if file.is_file() else parent_name
    contents = {
        "tuned.toml": overlay(parent, below, search, results, rule),
        "tuning.md": page(search, results, rule, command(search, parent_name, rule)),
        "gains.csv": _csv(gains(results)),
        "curve.csv": _csv(curves(results)),
    }
    for name, text in contents.items():
        atomic_write(folder / name, text.encode())
    return [folder / name for name in contents]


def page(search: Search, results: Sequence[Tuned], rule: str, command: str) -> str:
    """Both tables as Markdown, with how they were made."""
    shown = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k < _tries(results)] + [_tries(results)]
    points = {(row["method"], row["k"]): row for row in curves(results)}
    gained = gains(results)
    lines = ["# Tuning", "", facts(search, results, rule), "", f"Made by: `{command}`", ""]
    lines += grid(
        ["method", "default", "tuned", "gain", "clean", "robust", "trial", "what it sets"],
        [
            [
                row["method"], _number(row["default"]), _number(row["tuned"]), _number(row["gain"]),
                f"{_number(row['clean_default'])} -> {_number(row['clean_tuned'])}",
                f"{_number(row['robust_default'])} -> {_number(row['robust_tuned'])}",
                str(row["trial"]), _written(json.loads(row["configuration"])),
            ]
            for row in gained
        ],
        left=("method",),
    )  # fmt: skip
    lines += [
        "", "Scores, in percent. The tuned score is a maximum over noisy scores, so it is too high by itself: the test",
        "images say what the choice is worth.", "", "## Expected best of k tries", "",
        "In brackets the rank, then the interval with 90 % of the best of k tries (Dodge et al., EMNLP 2019).", "",
    ]  # fmt: skip
    body = []
    for row in gained:
        at = [points[row["method"], k] for k in shown]
        body.append([row["method"], *(f"{p['expected']:.1f} ({p['rank']}) {p['low']:.1f}–{p['high']:.1f}" for p in at)])
    lines += grid(["method", *(f"k = {k}" for k in shown)], body, left=("method",))
    return "\n".join(lines) + "\n"


def toml(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Nested tables of texts, numbers, booleans and lists as TOML."""
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines = [f"[{'.'.join(map(_key, path))}]"] if path and (plain or not inner) else []
    lines += [f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    parts = ["\n".join(lines)] if lines else []
    parts += [toml(value, (*path, key)).rstrip("\n") for key, value in inner.items()]
    return "\n\n".join(parts) + "\n"


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    return str(pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n"))


def _tries(results: Iterable[Tuned]) -> int:
    return min(len(item.scores) for item in results)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _written(configuration: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.partition('.')[2]}={value}" for name, value in configuration.items()) or "the recipe"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)
