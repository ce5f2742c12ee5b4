"""How the work is carried out: nothing here is part of a cell's identity. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from apd_bench.core.options import EXECUTORS, RunOptions
from apd_bench.core.specs import one_of
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

    def __post_init__(self) -> None:
        one_of("Executor", self.executor, EXECUTORS)

    @classmethod
    def of(cls, options: RunOptions) -> Machine:
        """What the options of a run say about it."""
        return cls(
            jobs=options.jobs,
            executor=options.executor,
            address=options.address,
            device=options.device,
            batch_size=options.batch_size,
            wait=options.wait,
            shard_size=options.shard,
        )


def prepare_environment(options: RunOptions) -> None:
    """Lets loaders and workers know what the options say about data and network."""
    if options.data is not None:
        os.environ["APD_BENCH_DATA"] = str(options.data)
    if options.offline:
        os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
