"""Seeds as one task: grouped, taken apart where it must be, and resumed without those that are done."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import make_plan

from apd_bench.cli import arguments, verb_parser
from apd_bench.runner.machine import Machine
from apd_bench.runner.plan import Plan, plan
from apd_bench.runner.report import RunReport
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.seeds import by_seed, parts
from apd_bench.runner.selection import Selection, resolve
from apd_bench.runner.session import run_plan
from apd_bench.runner.stages import Stages
from apd_bench.runner.tasks import Apart, FitDone, FitsDone, Interrupted, Progress, Result, Settings, Stopped, Task
from apd_bench.specs import Suite
from apd_bench.store import Store


class Listener(Reporter):
    """Remembers what came of each task that trains."""

    def __init__(self) -> None:
        self.trained: list[tuple[int, str]] = []

    def task_finished(self, task: Task, result: Result) -> None:
        if task.kind == "fit":
            self.trained.append((len(task.fits), type(result).__name__))


def go(
    grid: Plan, store: Store, reporter: Reporter | None = None, *, jobs: int = 1, only_fits: bool = True
) -> RunReport:
    machine = Machine(jobs=jobs, device="cpu", workbench="fakes:FakeBench", seeds_together=True)
    return run_plan(grid, store, machine, reporter or Reporter(), only_fits=only_fits)


def trained(store: Store) -> set[str]:
    return {path.name for path in store.fits.iterdir() if store.fit_problem(path.name) is None}


def test_fits_that_differ_by_their_seed_alone_are_one_group() -> None:
    fits = list(make_plan(seeds=(1, 2, 3)).fits.values())
    groups = by_seed(fits)
    assert [len(group) for group in groups] == [3, 3, 3, 3]
    assert {fit.id for group in groups for fit in group} == {fit.id for fit in fits}
    assert len(by_seed([fits[0], replace(fits[0], shots=4), replace(fits[0], train_eps=0.1)])) == 3
    task = Task(fit=fits[0], others=tuple(fits[1:5]))
    assert [len(part.fits) for part in parts(task, 2)] == [2, 2, 1]
    assert [fit for part in parts(task, 2) for fit in part.fits] == fits[:5] and parts(task, 5) == [task]


@pytest.mark.parametrize("jobs", [1, 2])
def test_cells_wait_for_all_seeds_of_their_group_and_then_run(tmp_path: Path, jobs: int) -> None:
    grid, listener, store = make_plan(seeds=(1, 2, 3)), Listener(), Store(tmp_path)
    report = go(grid, store, listener, jobs=jobs, only_fits=False)
    assert report.exit_code == 0 and len(report.computed) == len(grid.cells)
    assert listener.trained == [(3, "FitsDone")] * 4
    assert trained(store) == set(grid.fits) == set(report.fits_computed)


def test_without_the_option_every_fit_is_a_task(tmp_path: Path) -> None:
    listener = Listener()
    machine = Machine(jobs=1, device="cpu", workbench="fakes:FakeBench")
    run_plan(make_plan(seeds=(1, 2)), Store(tmp_path), machine, listener, only_fits=True)
    assert listener.trained == [(1, "FitDone")] * 8


@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        ("memory", [(5, "Apart"), (2, "FitsDone"), (2, "FitsDone"), (1, "FitDone")]),
        ("apart", [(5, "Apart"), *[(1, "FitDone")] * 5]),
        ("raise", [(5, "Apart"), *[(1, "Failure")] * 5]),
    ],
)
def test_a_group_comes_apart_where_it_must(tmp_path: Path, behave: str, expected: list[tuple[int, str]]) -> None:
    grid, listener, store = (
        make_plan((f"one:{behave}",), ("a",), ("pgd",), (1, 2, 3, 4, 5)),
        Listener(),
        Store(tmp_path),
    )
    report = go(grid, store, listener)
    assert listener.trained == expected
    assert len(report.failures) == (5 if behave == "raise" else 0)
    assert len(report.fits_computed) == (0 if behave == "raise" else 5)


def test_a_worker_that_dies_with_a_group_costs_no_seed(tmp_path: Path) -> None:
    grid, store = make_plan(("one:die-together", "two"), ("a",), ("pgd",), (1, 2, 3)), Store(tmp_path)
    report = go(grid, store, jobs=2)
    assert report.deaths >= 1 and not report.failures
    assert trained(store) == set(grid.fits)


def test_seeds_that_are_done_are_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = make_plan(("one",), ("a",), ("pgd",), (2,))
    go(first, store)
    (kept,) = first.fits
    before = {path.name: path.stat().st_mtime_ns for path in store.fit_path(kept).iterdir()}
    listener = Listener()
    go(make_plan(("one",), ("a",), ("pgd",), (1, 2, 3)), store, listener)
    assert listener.trained == [(2, "FitsDone")]
    assert {path.name: path.stat().st_mtime_ns for path in store.fit_path(kept).iterdir()} == before


def test_ctrl_c_between_groups_keeps_those_that_are_done(tmp_path: Path) -> None:
    class Impatient(Listener):
        def task_finished(self, task: Task, result: Result) -> None:
            super().task_finished(task, result)
            if len(self.trained) == 1:
                os.kill(os.getpid(), signal.SIGINT)

    grid, store, impatient, patient = make_plan(seeds=(1, 2, 3)), Store(tmp_path), Impatient(), Listener()
    assert go(grid, store, impatient).interrupted
    done = trained(store)
    assert len(done) == 3 * len([kind for _, kind in impatient.trained if kind == "FitsDone"]) < len(grid.fits)
    go(grid, store, patient)
    assert trained(store) == set(grid.fits)
    assert sum(size for size, _ in patient.trained) == len(grid.fits) - len(done)


# ------------------------------------------------------------------ what a worker really does


@pytest.fixture
def bench(tmp_path: Path) -> Stages:
    return Stages(Settings(fits=str(tmp_path / "fits"), checkpoints=str(tmp_path / "checkpoints"), threads=1))


def group_of(method: str, **changes: object) -> Task:
    suite = Suite(
        name="s", backbones=("tiny-clean",), methods=(method,), datasets=("fashion",), attacks=("pgd(steps=1)",),
        eps=(1 / 255,), seeds=(1, 2, 3), shots=(1,), limit=3, recipe={"training": {"epochs": 1}},
    )  # fmt: skip
    first, *others = plan(resolve(suite.with_options(**changes), Selection())).fits.values()
    return Task(fit=first, others=tuple(others))


def quiet(progress: Progress) -> None:
    """Watches nothing."""


def test_a_worker_trains_a_group_and_says_so_on_every_card(bench: Stages) -> None:
    task = group_of("advvlp")
    done = bench.run(task, quiet)
    assert isinstance(done, FitsDone), done
    for fit, part in zip(task.fits, done.parts, strict=True):
        card = json.loads(part.files["card.json"])
        assert (card["fit"], card["seed"], card["trained_together"]) == (fit.id, fit.seed, [1, 2, 3])
    alone = bench.run(Task(fit=task.fit), quiet)
    assert isinstance(alone, FitDone) and "trained_together" not in alone.card
    bench.close()


def test_memory_that_runs_out_halves_the_group_and_other_errors_do_not(
    bench: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> Callable[..., object]:
        def fit_together(*arguments: object, **options: object) -> object:
            raise error

        return fit_together

    task = group_of("advvlp")
    for error, expected in ((torch.OutOfMemoryError("no"), Apart), (RuntimeError("a shape is wrong"), None)):
        monkeypatch.setattr("apd_bench.runner.stages.fit_together", failing(error))
        result = bench.run(task, quiet)
        if expected is None:
            assert not isinstance(result, (Apart, FitsDone))
        else:
            assert result == Apart("memory ran out", 1)
    bench.close()


def test_a_method_that_does_not_say_so_and_a_stop_are_told_apart(bench: Stages) -> None:
    options = {"objective": {"strategy": "perturbed", "prompt_step": 1.0}, "training": {"epochs": 1}}
    result = bench.run(group_of("advtp", recipes={"advtp": options}), quiet)
    assert isinstance(result, Apart) and "does not say" in result.reason and result.size == 1

    def stop(progress: Progress) -> None:
        if progress.done:
            raise Interrupted

    assert isinstance(bench.run(group_of("advvlp"), stop), Stopped)
    bench.close()


@pytest.mark.parametrize("verb", ["run", "fit"])
def test_the_option_reaches_the_machine_from_the_line_and_from_the_environment(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not arguments.machine_of(verb_parser(verb).parse_args([])).seeds_together
    assert arguments.machine_of(verb_parser(verb).parse_args(["--seeds-together"])).seeds_together
    monkeypatch.setenv("APD_BENCH_SEEDS_TOGETHER", "1")
    assert arguments.machine_of(verb_parser(verb).parse_args([])).seeds_together
