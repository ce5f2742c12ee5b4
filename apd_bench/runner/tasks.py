"""What travels between the driver and its workers: tasks one way, results the other. Plain data, imports no torch."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from apd_bench.core.errors import UserError
from apd_bench.core.specs import Cell, Fit
from apd_bench.records.measured import Measured

STAGES = "apd_bench.runner.stages:Stages"


class Interrupted(BaseException):
    """Raised inside a worker at the next safe point once the run was asked to stop; no `except Exception` holds it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where and how workers work; none of it is part of a cell's identity.

    `fits` and `checkpoints` are folders of the store. `threads` None leaves torch's own choice. `plugins` are the files
    with code that somebody named: see `registry.plugin_files`. `share` is the part of a GPU's memory that a worker may
    use. `workbench` is the class that carries out the tasks.
    """

    fits: str
    checkpoints: str
    device: str = "cpu"
    batch_size: int | None = None
    threads: int | None = None
    plugins: tuple[tuple[str, str], ...] = ()
    share: float = 1.0
    workbench: str = STAGES


@dataclass(frozen=True, kw_only=True)
class Task:
    """A fit, a cell whose fits are done, or the shard (k, of m) of such a cell.

    `files` carries prompt states by fit id to workers on another disk.
    """

    fit: Fit
    cell: Cell | None = None
    shard: tuple[int, int] | None = None
    files: Mapping[str, Mapping[str, bytes]] | None = None

    @property
    def id(self) -> str:
        """The content address of the fit or the cell, with the shard."""
        if self.cell is None:
            return self.fit.id
        return self.cell.id if self.shard is None else f"{self.cell.id}.{self.shard[0]}of{self.shard[1]}"

    @property
    def kind(self) -> str:
        """Which of the two it is: "fit" or "cell"."""
        return "fit" if self.cell is None else "cell"

    @property
    def label(self) -> str:
        """One line for people."""
        if self.cell is None:
            return self.fit.label
        return self.cell.label if self.shard is None else f"{self.cell.label} part {self.shard[0] + 1}/{self.shard[1]}"


@dataclass(frozen=True, kw_only=True)
class FitDone:
    """The files of a prompt state by name, and its card."""

    files: Mapping[str, bytes]
    card: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An error as data; `prerequisite` marks what the user can mend (missing data, corrupt weights, ...)."""

    type: str
    message: str
    hint: str = ""
    traceback: str = ""
    prerequisite: bool = False

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """The failure behind an exception."""
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        said = {"message": str(error) or repr(error)}
        if isinstance(error, UserError):
            said = {"message": error.message, "hint": error.hint}
        return cls(type=type(error).__name__, traceback=text, prerequisite=isinstance(error, UserError), **said)

    @property
    def sticky(self) -> bool:
        """Whether the GPU is lost to the process: after such an error of CUDA every later call fails as well."""
        memory = ("out of memory", "ALLOC_FAILED")
        return "CUDA error" in self.message and not any(word in self.message for word in memory)

    def as_error(self, stage: str) -> dict[str, Any]:
        """The `error` entry of a record; `stage` is "fit" or "cell"."""
        return {**asdict(self), "stage": stage}


@dataclass(frozen=True)
class Stopped:
    """The worker was asked to stop; what it had done of the task is in its checkpoint."""


Result = FitDone | Measured | Failure | Stopped


@dataclass
class Progress:
    """How far a running task is: samples (or epochs) done of `total`, samples broken and image passes so far.

    `loss` is that of a fit's last epoch, 0 before there is one. `phase` says what is going on, where a task has parts:
    "2/4 apgd-t", "diagnostics".
    """

    done: float = 0
    total: float = 0
    broken: float = 0
    passes: float = 0
    loss: float = 0
    phase: str = ""


Watch = Callable[[Progress], None]  # what a worker calls, often; raises Interrupted once the run was asked to stop


class Workbench(Protocol):
    """What carries out tasks in one process; made once per worker, so that it can keep models and sets loaded."""

    def run(self, task: Task, watch: Watch) -> Result:
        """The result of `task`; raises what goes wrong, and Interrupted where `watch` does."""

    def close(self) -> None:
        """Undoes what the workbench changed in its process."""
