"""The columns of a table: all formats and the legend are loops over `table_columns`, so a new column is one entry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apd_bench.core.specs import SPACE
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.statistics import Estimate

Value = str | int | float | None
PEOPLE = frozenset({"md", "html", "tex", "terminal"})
PROGRAMS = frozenset({"csv", "json"})
FORMATS = PEOPLE | PROGRAMS


@dataclass(frozen=True)
class Column:
    """One column of the tables.

    - `key`: its name in CSV; JSON writes it with underscores. `title`: its name for people (default: the key).
    - `value`: for programs, and what the page sorts by unless `order` says otherwise; None where unknown. A `share` is
      in [0, 1]: CSV and people see percent.
    - `text`: for people (default: the value). `estimate`: what `value` estimates; CSV then has its interval in two
      more columns, JSON has it among the means, and the formats in `spread` show the interval beside the number.
    - `formats`: where it stands. `long` is the CSV of datasets, `gaps` the table of incomplete rows; what is not in
      `narrow` is left out on a small terminal.
    - `lowest_first`: where it is sorted by, the lowest is the best.
    - `help`: the line of the legend; empty where the title says it all.
    """

    key: str
    value: Callable[[Table, Row], Value]
    title: str = ""
    text: Callable[[Table, Row], str] | None = None
    order: Callable[[Table, Row], Value] | None = None
    share: bool = False
    digits: int = 3
    estimate: Callable[[Row], Estimate | None] | None = None
    spread: frozenset[str] = frozenset()
    formats: frozenset[str] = FORMATS
    narrow: bool = False
    left: bool = False
    lowest_first: bool = False
    help: str = ""

    @property
    def heading(self) -> str:
        """The title for people."""
        return self.title or self.key

    def number(self, table: Table, row: Row) -> Value:
        """The value as CSV has it: shares in percent, rounded."""
        return rounded(self.value(table, row), self.digits, 100 if self.share else 1)

    def shown(self, table: Table, row: Row, form: str) -> str:
        """The value as people read it in the format `form`."""
        if self.text is not None:
            return self.text(table, row)
        value = self.value(table, row)
        if not self.share:
            return "–" if value is None else str(rounded(value, self.digits))
        estimate = self.estimate(row) if self.estimate and form in self.spread else None
        return with_interval(estimate) if estimate is not None else percent(value)  # type: ignore[arg-type]

    def sorts_by(self, table: Table, row: Row) -> Value:
        """What the page sorts by; None, which stands last in both directions, where it is unknown."""
        return self.order(table, row) if self.order is not None else self.number(table, row)


def rounded(value: Value, digits: int, times: int = 1) -> Value:
    """`times` the value, with so many decimals; whatever is no fraction as it is."""
    return round(times * value, digits) if isinstance(value, float) else value


def percent(share: float | None, digits: int = 1, sign: str = "") -> str:
    """A share in [0, 1] as a percentage, with a plus before it where `sign` is "+", or a dash."""
    return "–" if share is None else f"{100 * share:{sign}.{digits}f}"


def interval(estimate: Estimate | None, digits: int = 1) -> str:
    """The 95 % interval in percent, or a dash."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return "–"
    return f"{100 * estimate.low:.{digits}f}–{100 * estimate.high:.{digits}f}"


def with_interval(estimate: Estimate, sign: str = "") -> str:
    """`41.2 (38.0–44.1)`, without brackets where there is no interval; with `sign` "+" `+1.2 (-0.3 to +2.1)`."""
    edges = [percent(edge, sign=sign) for edge in (estimate.low, estimate.high) if edge is not None]
    joined = (" to " if sign else "–").join(edges)
    return percent(estimate.value, sign=sign) + (f" ({joined})" if joined else "")


def missing_text(row: Row) -> str:
    """The datasets that lack cells of the row, with how many; empty for a complete row."""
    return ", ".join(f"{name} {count}" for name, count in row.missing.items())


def failed_text(row: Row) -> str:
    """How many cells of the row ended in which error; empty when none did."""
    return "; ".join(f"{count}x {reason}" for reason, count in row.failed.items())


def table_columns(attacks: Sequence[str], form: str) -> list[Column]:
    """The columns of the format `form` in their declared order, for tables that use `attacks`."""
    columns = [*_BEFORE, _accuracy("clean"), *map(_accuracy, attacks), _accuracy("worst"), *_AFTER]
    return [column for column in columns if form in column.formats]


def legend(form: str) -> list[str]:
    """What the columns of the format `form` mean, one line each; the name of an attack says what its column is."""
    return [f"{column.heading}: {column.help}" for column in table_columns((), form) if column.help]


def _accuracy(name: str) -> Column:
    """The accuracy of the column `name` of the estimates: "clean", an attack, or "worst"."""
    spread, help_text = _SPREAD.get(name, (frozenset(), ""))
    return Column(
        key=name,
        value=lambda _, row: row.estimates[name].value if name in row.estimates else None,
        share=True,
        estimate=lambda row: row.estimates.get(name),
        spread=spread,
        formats=FORMATS - {"json"},
        narrow=True,
        help=help_text,
    )


def _suspect_text(row: Row) -> str:
    """How many of the row's cells carry a suspect mark, and how many fits collapsed; empty when none."""
    parts = [f"⚠ {max(row.suspect.values())}"] if row.suspect else []
    return " ".join([*parts, f"collapsed {row.collapsed}"] if row.collapsed else parts)


def _ranks(row: Row) -> str:
    """The ranks that a row may have: `1–3`, or `2`; a dash for a row without a mean."""
    return "–".join(map(str, dict.fromkeys(row.ranks))) if row.ranks else "–"


def _parameters(row: Row) -> str:
    """The number of learned parameters with thousands separated."""
    if not row.trains:
        return "0"
    return "–" if row.parameters is None else f"{row.parameters:,}"


def _seconds(seconds: float | None) -> str:
    """Seconds to two figures, or a dash."""
    if seconds is None:
        return "–"
    return f"{seconds:.0f}" if seconds >= 9.95 else f"{seconds:.1f}" if seconds >= 0.995 else f"{seconds:.2g}"


_SPREAD: dict[str, tuple[frozenset[str], str]] = {
    "clean": (frozenset({"md"}), "without attack; a column per attack follows."),
    "worst": (frozenset({"md", "tex"}), "a sample counts only if it survives every attack of the table."),
}
_PLACE, _CSV = frozenset({"csv", "long"}), frozenset({"csv"})
_BEFORE = (
    Column("group", lambda t, _: t.key.group, formats=_PLACE),
    Column("backbone", lambda t, _: t.key.backbone, formats=_PLACE),
    Column("backbone training", lambda t, _: t.key.training, formats=_PLACE),
    Column("norm", lambda t, _: t.key.threat.norm, formats=_PLACE),
    Column("eps", lambda t, _: t.key.threat.eps, digits=8, formats=_PLACE),
    Column("eps over 255", lambda t, _: t.key.threat.eps * 255, digits=4, formats=_CSV),
    Column("knowledge", lambda t, _: t.key.threat.knowledge, formats=_PLACE),
    Column("space", lambda *_: SPACE, formats=_PLACE),
    Column("task", lambda t, _: t.key.task, formats=_PLACE),
    Column("shots", lambda t, r: t.key.shots if r.trains else 0, formats=_PLACE),
    Column(
        key="rank",
        lowest_first=True,
        value=lambda _, r: r.rank,
        text=lambda _, r: _ranks(r),
        narrow=True,
        help="from one plus the number of methods that are significantly better to the number of those that are not "
        "significantly worse (paired bootstrap on the same samples, Holm over all pairs of the table, 5 %).",
    ),
    Column("last rank", lambda _, r: r.ranks[1] if r.ranks else None, formats=PROGRAMS),
    Column("method", lambda _, r: r.method, formats=FORMATS | {"gaps"}, narrow=True, left=True, lowest_first=True),
    Column(
        key="reconstruction",
        title="source",
        value=lambda _, r: int(r.reconstruction),
        text=lambda _, r: "reconstruction" if r.reconstruction else "",
        left=True,
        help="neither code nor settings of the paper are public, so the recipe is our reading of it.",
    ),
    Column(
        key="family",
        lowest_first=True,
        value=lambda _, r: r.family,
        left=True,
        help="trained on clean or adversarial images; prompts in the text or the image tower, or in both.",
    ),
    Column(
        key="parameters",
        lowest_first=True,
        title="learned",
        value=lambda _, r: r.parameters,
        text=lambda _, r: _parameters(r),
        order=lambda _, r: r.parameters if r.trains else 0,
        formats=FORMATS | {"gaps"},
        help="how many numbers were trained.",
    ),
)
_AFTER = (
    Column(
        key="worst interval",
        title="95 %",
        value=lambda _, r: e.low if (e := r.estimates.get("worst")) else None,
        text=lambda _, r: interval(r.estimates.get("worst")),
        share=True,
        formats=frozenset({"html", "terminal"}),
        narrow=True,
        help="the interval of worst.",
    ),
    Column(
        key="gain",
        title="vs zero-shot",
        value=lambda _, r: r.gain.value if r.gain else None,
        text=lambda _, r: with_interval(r.gain, "+") if r.gain else "–",
        order=lambda _, r: 100 * r.gain.value if r.gain else 0.0 if r.method == "zero_shot" and r.complete else None,
        share=True,
        estimate=lambda r: r.gain,
        formats=FORMATS - {"tex"},
        help="worst less that of zero_shot on the same samples, in points, with its 95 % interval.",
    ),
    Column("harmonic mean", lambda _, r: r.harmonic, title="H", share=True, help="harmonic mean of clean and worst."),
    Column(
        key="samples",
        title="n",
        value=lambda _, r: r.samples or None,
        text=lambda _, r: f"{r.samples}×{len(r.seeds)}" if r.complete else "–",
        formats=FORMATS - {"tex", "json"},
        narrow=True,
        help="different test images over all datasets × seeds.",
    ),
    Column("datasets", lambda t, _: len(t.datasets), formats=_CSV),
    Column("seeds", lambda _, r: len(r.seeds) if r.trains else 0, formats=_CSV),
    Column(
        "cells",
        lambda _, r: r.done,
        text=lambda _, r: f"{r.done}/{r.planned}",
        order=lambda _, r: r.done / max(r.planned, 1),
        formats=frozenset({"md", "html", "terminal", "gaps"}),
        narrow=True,
        help="done / planned (datasets × seeds × attacks that most methods have). Rows with a gap have no rank and no "
        "mean; sets that only a few methods were tried on have a table of their own.",
    ),
    Column("missing", lambda _, r: missing_text(r), formats=frozenset({"gaps"}), left=True),
    Column("failed", lambda _, r: failed_text(r), formats=frozenset({"gaps"}), left=True),
    Column("cells done", lambda _, r: r.done, formats=PROGRAMS),
    Column("cells planned", lambda _, r: r.planned, formats=PROGRAMS),
    Column(
        key="suspect cells",
        lowest_first=True,
        title="suspect",
        value=lambda _, r: max(r.suspect.values(), default=0),
        text=lambda _, r: _suspect_text(r),
        order=lambda _, r: max(r.suspect.values(), default=0) + r.collapsed,
        formats=FORMATS - {"tex"},
        narrow=True,
        help="cells whose diagnostics hint at masked gradients; the reasons stand below the table.",
    ),
    Column("suspect reasons", lambda _, r: "; ".join(r.suspect), formats=_CSV),
    Column("collapsed fits", lambda _, r: r.collapsed, formats=PROGRAMS),
    Column(
        key="train seconds per fit",
        lowest_first=True,
        title="train s",
        value=lambda _, r: r.cost.train_seconds,
        text=lambda _, r: _seconds(r.cost.train_seconds if r.trains else 0.0),
        digits=1,
        formats=frozenset({"md", "html", "csv", "json"}),
        help="seconds per fit, on the machines of the records.",
    ),
    Column("attack seconds", lambda _, r: r.cost.attack_seconds, digits=1, formats=PROGRAMS),
    Column(
        key="attack seconds per sample",
        lowest_first=True,
        title="attack s",
        value=lambda _, r: r.cost.sample_seconds,
        text=lambda _, r: _seconds(r.cost.sample_seconds),
        formats=frozenset({"md", "html", "csv", "json"}),
        help="seconds for all attacks on one sample, on the machines of the records.",
    ),
    Column("forwards per sample", lambda _, r: r.cost.forwards, digits=1, formats=PROGRAMS),
    Column("backwards per sample", lambda _, r: r.cost.backwards, digits=1, formats=PROGRAMS),
    Column("recipe", lambda _, r: r.variant, formats=PROGRAMS),
)
