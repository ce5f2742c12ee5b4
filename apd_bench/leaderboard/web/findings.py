"""The question that a page asks, and what a table answers: at most three findings, computed from its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from apd_bench.core.specs import format_eps
from apd_bench.leaderboard.columns import percent, with_interval
from apd_bench.leaderboard.model import Row, Table

QUESTION = "Which prompt tuning hardens CLIP?"
MOST = 3


class Finding(NamedTuple):
    """A number, as large as it is shown, and the sentence that says what it is."""

    number: str
    text: str


def lead(tables: Sequence[Table]) -> str:
    """How many methods were tested, and with what."""
    methods = {row.method for table in tables for row in table.rows}
    attacks = list(dict.fromkeys(attack for table in tables for attack in (*table.attacks, *table.distance_attacks)))
    counted = f"{len(methods)} methods" if len(methods) > 1 else "one method"
    return f"{counted} · one protocol · every sample attacked by {_listed(attacks)}"


def findings(table: Table, family: Sequence[Table]) -> list[Finding]:
    """What the table says; `family` are the tables of the same comparison at all budgets, smallest first."""
    rows = table.ranked
    made = (_best(table, rows), _further_attacks(table, rows), _larger_budget(table, family), _how_many(rows))
    found = (finding for part in made for finding in part)
    return list(islice(found, MOST)) if rows else []


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _best(table: Table, rows: Sequence[Row]) -> Iterator[Finding]:
    trained = [row for row in rows if row.method != "zero_shot"]
    reference = next((row for row in rows if row.method == "zero_shot"), None)
    eps = format_eps(table.key.threat.eps, table.key.threat.norm)
    if not trained:
        return
    best, worst = trained[0], trained[0].estimates["worst"]
    name = f"{best.method}{' (our reconstruction)' if best.reconstruction else ''}"
    if reference is None or best.gain is None:
        yield Finding(f"{percent(worst.value)} %", f"the best worst case at {eps}: {name}, {with_interval(worst)}")
        return
    sure = best.gain.low is not None and best.gain.low > 0
    yield Finding(
        f"{percent(worst.value)} % vs {percent(reference.estimates['worst'].value)} %",
        f"the best method, {name}, against zero_shot in the worst case at {eps}: paired difference "
        f"{with_interval(best.gain, '+')}" + ("" if sure else ", which may be noise"),
    )


def _further_attacks(table: Table, rows: Sequence[Row]) -> Iterator[Finding]:
    if len(table.attacks) < 2:
        return
    first, *others = table.attacks
    drops = sorted(row.estimates[first].value - row.estimates["worst"].value for row in rows)
    ends = list(dict.fromkeys(percent(drop) for drop in (drops[0], drops[-1])))
    alone = f": no number under {first} can be quoted alone" if drops[0] > 0 else ""
    number = " to ".join(f"−{end}" if float(end) else end for end in ends)
    yield Finding(f"{number} points", f"is what {_listed(others)} take from accuracy under {first}{alone}")


def _larger_budget(table: Table, family: Sequence[Table]) -> Iterator[Finding]:
    eps = table.key.threat.eps
    largest = family[-1] if family and family[-1].ranked else table
    if eps <= 0 or largest.key.threat.eps <= eps:
        return
    top = largest.ranked[0]
    times = f"{largest.key.threat.eps / eps:.3g} times this budget"
    yield Finding(
        f"≤ {percent(top.estimates['worst'].value)} %",
        f"is left of any method at {format_eps(largest.key.threat.eps, largest.key.threat.norm)}, {times}",
    )


def _how_many(rows: Sequence[Row]) -> Iterator[Finding]:
    gains = [row.gain for row in rows if row.gain is not None]
    better = sum(gain.low is not None and gain.low > 0 for gain in gains)
    worse = sum(gain.high is not None and gain.high < 0 for gain in gains)
    if gains:
        yield Finding(
            f"{better} of {len(gains)}",
            f"methods beat zero_shot by more than the 95 % interval of the difference; {worse} fall below it",
        )
    elif len(rows) > 1:
        spread = rows[0].estimates["worst"].value - rows[-1].estimates["worst"].value
        yield Finding(f"{percent(spread)} points", f"lie between {rows[0].method} and {rows[-1].method}")
