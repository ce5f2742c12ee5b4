"""What the page says of each method: its recipes with their sources, its card, its tries, its records, its commands."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from apd_bench.core.package_data import baselines_path
from apd_bench.core.specs import MethodRecipe
from apd_bench.core.text import file_name, plain_lines
from apd_bench.leaderboard import command
from apd_bench.leaderboard.curves import Point
from apd_bench.leaderboard.looks import Look
from apd_bench.leaderboard.model import registered
from apd_bench.leaderboard.tidy import Measurement
from apd_bench.leaderboard.tries import Tuning
from apd_bench.leaderboard.web.charts import Chart, curves


def anchor(method: str) -> str:
    """The id of the section of a method."""
    return f"method-{file_name(method)}"


def paper_link(method: str) -> tuple[str, str]:
    """Where and when the paper of a method was published, and its address; each empty where it is not known."""
    known = registered(method)
    url = known.url if known is not None and known.url.startswith("https://") else ""
    return (known.venue if known is not None else "") or ("paper" if url else ""), url


def describe(
    items: Iterable[Measurement], tuning: Mapping[str, Tuning], looks: Mapping[str, Look]
) -> Iterator[dict[str, Any]]:
    """One part of the page per method, by name."""
    mine: dict[str, list[Measurement]] = defaultdict(list)
    for item in items:
        mine[item.method].append(item)
    for name, records in sorted(mine.items()):
        variants = {item.variant: item.cell.fit for item in records}
        card = baselines_path(file_name(name.partition(".")[0]), "CARD.md")
        tries = tuning.get(name)
        used = {item.cell.fit.backbone.name for item in records}
        tries = tries if tries and (not tries.backbones or used & {*tries.backbones}) else None
        yield {
            "name": name,
            "records": records,
            "commands": [shlex.join(command.words(part)) for part in command.crossings(item.cell for item in records)],
            "recipes": [
                {"name": variant[:6], "train_eps": fit.train_eps, "spec": fit.method, "sections": _settings(fit.method)}
                for variant, fit in sorted(variants.items(), key=lambda one: (one[1].train_eps or 0.0, one[0]))
            ],
            "card": card_html(card.read_text(encoding="utf-8")) if card.is_file() else "",
            "tuning": tries,
            "curve": _curve(name, tries, looks),
        }


def card_html(text: str) -> str:
    """A card in Markdown as HTML: raw HTML stays text, pictures are none, and only links to https lead anywhere."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = reader.parse(plain_lines(text))
    led: list[bool] = []
    for token in (part for block in tokens for part in (block, *(block.children or ()))):
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 3, 6)}"  # below the heading of the method
        elif token.type == "link_open":
            led.append(str(token.attrs.get("href", "")).startswith("https://"))
            token.attrs = {**token.attrs, "rel": "noopener"} if led[-1] else {}
            token.tag = "a" if led[-1] else "span"
        elif token.type == "link_close":
            token.tag = "a" if led.pop() else "span"
    return str(reader.renderer.render(tokens, reader.options, {}))


def _settings(recipe: MethodRecipe) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """The sections of a recipe, each as (option, value, where it comes from); then sources of what is no option."""
    tables: dict[str, Mapping[str, Any]] = {
        "learner": {"kind": recipe.learner, **recipe.learner_options},
        "objective": {"kind": recipe.objective, **recipe.objective_options} if recipe.objective else {},
        "inner_attack": recipe.inner_attack,
        "training": recipe.training,
    }
    rest = dict(recipe.sources)
    found = [
        (section, [(name, _value(value), rest.pop(f"{section}.{name}", "")) for name, value in options.items()])
        for section, options in tables.items()
    ]
    further = ("further sources", [(name, "", why) for name, why in sorted(rest.items())])
    return [(section, lines) for section, lines in (*found, further) if lines]


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)


def _curve(name: str, tries: Tuning | None, looks: Mapping[str, Look]) -> Chart | None:
    if tries is None or name not in looks:
        return None
    lines: dict[str, Sequence[Point]] = {name: tries.curve}
    caption = "Expected best of k tries, and the 90 % interval of the best."
    return curves(f"tuning-{file_name(name)}", caption, ("tries k", "score, %"), lines, looks)
