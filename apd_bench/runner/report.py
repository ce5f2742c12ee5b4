"""What a run did, as data: counts, failures, and the exit code that follows. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from apd_bench.core.errors import EXIT_CELLS_FAILED, EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE
from apd_bench.core.specs import Cell
from apd_bench.runner.tasks import Failure

STRATEGIES: dict[str, tuple[str | None, ...]] = {  # the statuses of the cells that each works on; None: no record
    "unfinished": (None, "error", "cancelled"),
    "missing": (None,),
    "failed": ("error", "cancelled"),
    "force": (None, "error", "cancelled", "success"),
    "cached": (),
}


def choose(cells: Iterable[Cell], statuses: Mapping[str, str], strategy: str) -> list[Cell]:
    """The cells to work on by one of the STRATEGIES, given the statuses of the stored records."""
    return [cell for cell in cells if statuses.get(cell.id) in STRATEGIES[strategy]]


@dataclass
class RunReport:
    """Counts of one run: cells planned, already done, to do, computed, failed, cancelled; of trained fits likewise."""

    planned: int = 0
    already_done: int = 0
    to_do: int = 0
    computed: list[str] = field(default_factory=list)
    cancelled: int = 0
    fits_to_do: int = 0
    fits_computed: list[str] = field(default_factory=list)
    fits_reused: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    deaths: int = 0
    interrupted: bool = False
    seconds: float = 0.0

    @classmethod
    def of(cls, cells: Sequence[Cell], statuses: Mapping[str, str], strategy: str) -> "RunReport":
        """The report of a run that has not begun."""
        done = sum(statuses.get(cell.id) == "success" for cell in cells)
        return cls(planned=len(cells), already_done=done, to_do=len(choose(cells, statuses, strategy)))

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some cells failed, 2 every failure is a missing prerequisite, 130 interrupted."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        if not self.failures:
            return EXIT_DONE
        return EXIT_USAGE if all(item.prerequisite for item in self.failures.values()) else EXIT_CELLS_FAILED

    def messages(self) -> list[tuple[Failure, int]]:
        """Every distinct failure once, with the number of cells that it cost."""
        counts: dict[tuple[str, str], tuple[Failure, int]] = {}
        for failure in self.failures.values():
            key = (failure.type, failure.message)
            counts[key] = (failure, counts.get(key, (failure, 0))[1] + 1)
        return sorted(counts.values(), key=lambda item: -item[1])

    def complaints(self) -> list[str]:
        """Every distinct failure in a line."""
        return [f"{number} cells: {item.message} {item.hint}".rstrip() for item, number in self.messages()]
