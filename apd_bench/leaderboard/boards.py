"""Stores in, board files out: what is read, how files are named, and whether committed files are up to date."""

import gc
import shlex
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apd_bench.core.errors import CorruptFile, MissingPrerequisite, RegressionFound, UsageError, unknown_name
from apd_bench.core.files import atomic_write
from apd_bench.core.text import file_name
from apd_bench.leaderboard.aggregate import tables, unique
from apd_bench.leaderboard.csv_file import render_csv, render_long_csv
from apd_bench.leaderboard.defences import DefenceTable, defence_tables, render_defences, render_defences_csv
from apd_bench.leaderboard.json_file import render_defences_json, render_json
from apd_bench.leaderboard.latex_file import render_latex
from apd_bench.leaderboard.markdown import render_markdown
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.pictures import load_examples
from apd_bench.leaderboard.tidy import EXTRA, Measurement, Shared, column_of, measurement
from apd_bench.leaderboard.tries import Tuning, load_tuning
from apd_bench.leaderboard.web.page import render_page
from apd_bench.records.store import Store

DEFAULT_FORMATS = ("md", "csv")


@dataclass(frozen=True, kw_only=True)
class View:
    """What a board is about; empty means everything. `attacks` are columns: further evidence still lowers the worst."""

    backbones: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    eps: tuple[tuple[str, float], ...] = ()  # each with its norm
    seeds: tuple[int, ...] = ()
    shots: tuple[int, ...] = ()
    groups: tuple[str, ...] = ()

    def wants(self, item: Measurement) -> bool:
        """True when `item` belongs to the board; seeds and shots do not concern methods that learn nothing."""
        cell, threat = item.cell, item.cell.threat
        return (
            (not self.backbones or cell.fit.backbone.name in self.backbones)
            and (not self.methods or item.method in self.methods)
            and (not self.datasets or cell.dataset.name in self.datasets)
            and (not self.eps or any(norm == threat.norm and abs(threat.eps - eps) < 1e-9 for norm, eps in self.eps))
            and (not self.seeds or not item.trains or item.seed in self.seeds)
            and (not self.shots or not item.trains or item.shots in self.shots)
            and (not self.groups or cell.dataset.group in self.groups)
        )


@dataclass(frozen=True)
class Boards:
    """Everything that stores hold, as tables by group, with notes on what could not be used."""

    measurements: tuple[Measurement, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    examples: tuple[Mapping[str, Any], ...] = ()
    tuning: Mapping[str, Tuning] = field(default_factory=dict)
    defences: tuple[DefenceTable, ...] = ()

    @property
    def groups(self) -> list[str]:
        """The groups of datasets that have a table: "embedded", "benchmark", ..."""
        return sorted({table.key.group for table in self.tables} | {table.group for table in self.defences})

    def of(self, group: str) -> list[Table]:
        """The tables of one group, in order."""
        return [table for table in self.tables if table.key.group == group]


FORMATS: dict[str, Callable[[Boards, str], dict[str, str]]] = {  # file contents by the ending of the name
    "md": lambda boards, group: {".md": render_markdown(boards.of(group), group, boards.notes)},
    "csv": lambda boards, group: {
        ".csv": render_csv(boards.of(group)),
        "-datasets.csv": render_long_csv(boards.of(group)),
    },
    "json": lambda boards, group: {".json": render_json(boards.of(group), group, boards.notes)},
    "tex": lambda boards, group: {".tex": render_latex(boards.of(group), group)},
    "html": lambda boards, group: {
        ".html": render_page(
            boards.of(group),
            group,
            measurements=boards.measurements,
            examples=boards.examples,
            tuning=boards.tuning,
            notes=boards.notes,
            defended=[table for table in boards.defences if table.group == group],
        )
    },
}


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the collection of cycles: reading makes none, and looking for them among 100,000 records takes long."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collection()
def read_measurements(stores: Sequence[Path]) -> tuple[list[Measurement], list[str]]:
    """All measurements of the stores (each cell once), and notes on damaged or contradicting records.

    Raises MissingPrerequisite for a folder that holds no records.
    """
    found: list[Measurement] = []
    notes: list[str] = []
    shared = Shared()
    for path in stores:
        store = Store(path)
        if not store.exists():
            raise MissingPrerequisite(
                f"There are no records in {path}.", hint=f"Measure something first: apd-bench run --results {path}"
            )
        for record in store.records():
            try:
                has_outcomes = record.done and record.outcomes
                extra = EXTRA if record.cell.defence is None else None
                outcomes = store.outcomes(record.id, record, extra=extra) if has_outcomes else None
            except CorruptFile as error:
                notes.append(f"left out: {error.message}")
                continue
            found.append(measurement(record, outcomes, shared))
        notes += [f"left out: record {damage.id} is damaged" for damage in store.damaged()]
    kept, conflicts = unique(found)
    notes += [f"cell {cell}: the stores hold different outcomes; the first store counts" for cell in conflicts]
    return kept, notes


def collect(stores: Sequence[Path], cells: Container[str] | None = None, *, view: View | None = None) -> Boards:
    """The tables of all records in `stores` (only of `cells`, only what `view` wants); none when there is nothing.

    Raises UnknownName for a name in `view` that no record has.
    """
    view = view or View()
    measurements, notes = read_measurements(stores)
    kept = [item for item in measurements if (cells is None or item.id in cells) and view.wants(item)]
    if measurements:
        _refuse_unmeasured(view, measurements)
    bare = tuple(item for item in kept if item.cell.defence is None)
    return Boards(
        bare,
        tuple(tables(bare, tuple(map(column_of, view.attacks)))),
        tuple(notes),
        tuple(load_examples(stores)),
        load_tuning(stores),
        tuple(defence_tables(kept)),
    )


def _refuse_unmeasured(view: View, measurements: Sequence[Measurement]) -> None:
    cells = [item.cell for item in measurements]
    for kind, asked, measured in (
        ("backbone", view.backbones, {cell.fit.backbone.name for cell in cells}),
        ("method", view.methods, {item.method for item in measurements}),
        ("dataset", view.datasets, {cell.dataset.name for cell in cells}),
        ("attack", view.attacks, {item.attack for item in measurements}),
        ("group", view.groups, {cell.dataset.group for cell in cells}),
    ):
        for name in asked:
            if name not in measured:
                raise unknown_name(f"measured {kind}", name, measured, command="apd-bench list cells")


def render_files(boards: Boards, formats: Sequence[str] = DEFAULT_FORMATS) -> dict[str, str]:
    """File names and contents of all boards; raises UsageError for a format that does not exist."""
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"There is no board format '{name}'.", hint=f"Formats: {', '.join(FORMATS)}.")
    files = {
        f"{file_name(group)}{ending}": content
        for group in boards.groups
        if boards.of(group)
        for name in dict.fromkeys(formats)
        for ending, content in FORMATS[name](boards, group).items()
    }
    for group in {table.group for table in boards.defences}:
        own = [table for table in boards.defences if table.group == group]
        renderings = {"md": render_defences, "csv": render_defences_csv, "json": render_defences_json}
        files |= {
            f"{file_name(group)}-defences.{form}": render(own) for form, render in renderings.items() if form in formats
        }
    return files


def write_boards(
    stores: Sequence[Path], out: Path, formats: Sequence[str] = DEFAULT_FORMATS, *, view: View | None = None
) -> list[Path]:
    """Writes the boards of `stores` into the folder `out` and returns the files, in order of their names.

    Raises MissingPrerequisite when a store is not there, holds nothing, or `out` cannot be written.
    """
    files = render_files(_filled(collect(stores, view=view), stores), formats)
    for name, content in sorted(files.items()):
        atomic_write(out / name, content.encode())
    return [out / name for name in sorted(files)]


def check_boards(
    stores: Sequence[Path], out: Path, formats: Sequence[str] = DEFAULT_FORMATS, *, view: View | None = None
) -> list[Path]:
    """The files in `out` that agree with `stores`; raises RegressionFound naming those that do not."""
    files = render_files(_filled(collect(stores, view=view), stores), formats)
    there = {name: (out / name).read_bytes() for name in files if (out / name).is_file()}
    stale = [name for name, content in sorted(files.items()) if there.get(name) != content.encode()]
    if stale:
        again = shlex.join(["apd-bench", "report", *map(str, stores), "--out", str(out), "--format", ",".join(formats)])
        raise RegressionFound(f"Stale in {out}: {', '.join(stale)}.", hint=f"Make them anew: {again}")
    return [out / name for name in sorted(files)]


def render_one(boards: Boards, path: Path, stores: Sequence[Path]) -> str:
    """The content of one board file, its format by the suffix of `path`.

    Raises UsageError for another suffix, and when the records are of several groups, which never share a file.
    """
    form = path.suffix.removeprefix(".").lower()
    if len(_filled(boards, stores).groups) > 1:
        raise UsageError(
            f"The records belong to several groups: {', '.join(boards.groups)}.", hint="Choose one with --group."
        )
    files = render_files(boards, [form])
    return files[f"{file_name(boards.groups[0])}.{form}"]


def _filled(boards: Boards, stores: Sequence[Path]) -> Boards:
    if not (boards.tables or boards.defences):
        places = ", ".join(str(path) for path in stores)
        raise MissingPrerequisite(
            f"No record in {places} belongs to a board.", hint="Measure something first: apd-bench run"
        )
    return boards
