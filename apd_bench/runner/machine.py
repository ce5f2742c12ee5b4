"""How the work is carried out: nothing here is part of a cell's identity. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from apd_bench.runner.executor import STAGES
from apd_bench.runner.shards import SHARD


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Processes, device and batch; None means: what fits this machine and these models.

    `executor`: "local", or "ray" on the cluster at `address` (None: one started here). `shard_size`: samples of the
    parts that large cells are measured in. `wait`: wait for another run on the same store instead of refusing.
    `workbench` names what carries out the tasks.
    """

    jobs: int | None = None
    executor: str = "local"
    address: str | None = None
    device: str | None = None
    batch_size: int | None = None
    wait: bool = False
    shard_size: int = SHARD
    workbench: str = STAGES
