"""Fits that differ in nothing but their seed, as one task; and how such a task comes apart again. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from apd_bench.identity import digest
from apd_bench.runner.tasks import Task
from apd_bench.specs import Fit


def by_seed(fits: Iterable[Fit]) -> list[tuple[Fit, ...]]:
    """The fits in groups that differ by their seed alone, in the order in which they first appear."""
    groups: dict[str, list[Fit]] = {}
    for fit in fits:
        groups.setdefault(digest(replace(fit, seed=0)), []).append(fit)
    return [tuple(group) for group in groups.values()]


def one_by_one(fits: Iterable[Fit]) -> list[tuple[Fit, ...]]:
    """Each fit by itself."""
    return [(fit,) for fit in fits]


def parts(task: Task, size: int) -> list[Task]:
    """The fits of a task as tasks of at most `size` fits; the task itself where it has no more than that."""
    fits = task.fits
    if len(fits) <= size:
        return [task]
    return [Task(fit=fits[place], others=tuple(fits[place + 1 : place + size])) for place in range(0, len(fits), size)]
