"""`worst.fast` against standard AutoAttack by method, from the verdicts of `results/` alone; attacks nothing.

The same prompts, budget and samples; where a cell of `worst.fast` holds more samples, those that AutoAttack saw count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path

from apd_bench.core.errors import MissingPrerequisite
from apd_bench.core.identity import digest
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import Record
from apd_bench.records.store import Store
from tests.benchmarks.suites import Verdicts
from tests.benchmarks.table import Row

BOARD, EVIDENCE = Path("results/embedded"), Path("results/suites")
SUITE, LIBRARY = "worst.fast", "autoattack"


def rows(quick: bool, device: str) -> Iterator[Row]:
    """A row for each method, then one for all; raises MissingPrerequisite where nothing was judged by both."""
    by_method = differences(Store(BOARD), Store(EVIDENCE))
    for method, verdicts in by_method.items():
        yield replace(verdicts.row(SUITE, method), part="audit")
    yield replace(reduce(Verdicts.plus, by_method.values()).row(SUITE, "all methods"), part="audit")


def differences(board: Store, evidence: Store) -> dict[str, Verdicts]:
    """The verdicts of `worst.fast` on the board and of AutoAttack on the samples of its cells, by method."""
    suites = {_place(record): record for record in board.records() if record.cell.attack.label == SUITE}
    found: dict[str, Verdicts] = {}
    for record in evidence.records():
        other = suites.get(_place(record))
        if record.cell.attack.label != LIBRARY or other is None or other.fit["digest"] != record.fit["digest"]:
            continue
        name = record.cell.fit.method.name
        verdicts = _verdicts(evidence.outcomes(record.id, record), board.outcomes(other.id, other), record, other)
        found[name] = found[name].plus(verdicts) if name in found else verdicts
    if not found:
        raise MissingPrerequisite(f"{evidence.path} holds no cell of {LIBRARY} beside one of {SUITE} in {board.path}.")
    return dict(sorted(found.items()))


def _place(record: Record) -> str:
    """What two cells share that differ in their attack and in how many samples they take."""
    cell = record.cell
    return digest(replace(cell, attack=replace(cell.attack, name="any", version=1, options={}, code=None), limit=None))


def _verdicts(theirs: Outcomes, ours: Outcomes, library: Record, suite: Record) -> Verdicts:
    place = {name: row for row, name in enumerate(ours.sample_id.tolist())}
    order = [place[name] for name in theirs.sample_id.tolist()]  # a limit takes the first of one fixed order
    share = len(order) / len(ours.sample_id)
    return Verdicts.of(
        ours.broken[order],
        theirs.broken,
        forwards=round(share * int(suite.timing["forwards"])),
        backwards=round(share * int(suite.timing["backwards"])),
        seconds=share * float(suite.timing["attack_seconds"]),
        library_forwards=int(library.timing["forwards"]),
        library_backwards=int(library.timing["backwards"]),
    )
