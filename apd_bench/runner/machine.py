"""How the work is carried out: nothing here is part of a cell's identity. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from apd_bench.runner.executor import STAGES


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Processes, device and batch; None means: what fits this machine and these models.

    `wait`: wait for another run on the same store instead of refusing. `workbench` names what carries out the tasks.
    """

    jobs: int | None = None
    device: str | None = None
    batch_size: int | None = None
    wait: bool = False
    workbench: str = STAGES
