"""Budgets from small to large: what a smaller one has broken is taken over, in any order of work, and said so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest

from apd_bench.records import Outcomes
from apd_bench.runner.machine import Machine
from apd_bench.runner.plan import Plan, plan
from apd_bench.runner.queue import WorkQueue
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.selection import Selection, resolve
from apd_bench.runner.session import run_plan
from apd_bench.runner.sharing import COLUMN, alike, broken_part, rows_left, smaller_budgets, with_carried
from apd_bench.runner.stages import Stages
from apd_bench.runner.tasks import CellDone, FitDone, Settings, Task
from apd_bench.specs import AttackSpec, Cell, Suite, ThreatModel
from apd_bench.store import Store


def budgets(*numerators: int, attack: str = "pgd") -> Plan:
    """Cells that differ by their budget only, in the order given."""
    made = fakes.make_plan(methods=("one",), datasets=("a",), attacks=(attack,))
    cells = [replace(made.cells[0], threat=ThreatModel(eps=number / 255)) for number in numerators]
    return Plan(made.suite, tuple(cells))


def test_each_budget_follows_the_next_smaller_one_of_its_kind() -> None:
    four, none, one, two = budgets(4, 0, 1, 2).cells
    other = replace(two, attack=AttackSpec(name="cw"))
    far = [replace(cell, attack=AttackSpec(name="cw-l2")) for cell in (one, two)]
    found = smaller_budgets([four, none, one, two, other, *far])
    assert {key: cell.id for key, cell in found.items()} == {two.id: one.id, four.id: two.id}


def outcomes(ids: str, broken: str, **extra: Any) -> Outcomes:
    hit = np.asarray([name in broken for name in ids])
    return Outcomes(sample_id=list(ids), label=np.zeros(len(ids)), clean_prediction=np.zeros(len(ids)),
                    adversarial_prediction=hit, broken=hit, extra=extra)  # fmt: skip


def test_what_was_left_and_what_was_taken_over_make_the_whole_cell() -> None:
    carried = broken_part(outcomes("abcde", "bdx", margin=np.arange(5.0), old=np.zeros(5)))
    ids = list("abcd")  # e is not of this shard
    assert rows_left(ids, carried) == [0, 2]
    done = CellDone(metrics={"n": 2, "robust_accuracy": 0.5}, timing={"forwards": 7},
                    outcomes=outcomes("ac", "c", margin=np.asarray([8.0, 9.0])))  # fmt: skip
    whole = with_carried(done, carried, ids, {"cell": "x", "eps": 0.1})
    assert whole.outcomes.sample_id.tolist() == ids
    assert whole.outcomes.broken.tolist() == [False, True, True, True]
    assert whole.outcomes.extra["margin"].tolist() == [8, 1, 9, 3]
    assert whole.outcomes.extra[COLUMN].tolist() == [False, True, False, True]
    assert set(whole.outcomes.extra) == {"margin", COLUMN}
    assert (whole.metrics["n"], whole.metrics["robust_accuracy"]) == (4, 0.25)
    assert whole.effective[COLUMN] == {"cell": "x", "eps": 0.1}
    nothing = with_carried(replace(done, outcomes=outcomes("", "")), carried, ["b", "d"], {})
    assert nothing.outcomes.broken.all() and nothing.metrics["robust_accuracy"] == 0
    assert set(nothing.outcomes.extra) == {"margin", "old", COLUMN}


def test_shards_from_before_and_after_sharing_fit_together() -> None:
    plain, shared = outcomes("ab", "a"), outcomes("cd", "c", **{COLUMN: np.asarray([True, False])})
    assert alike([plain]) == [plain]
    joined = Outcomes.merge(alike([plain, shared]), list("abcd"))
    assert joined.extra[COLUMN].tolist() == [False, False, True, False]


def test_a_larger_budget_waits_even_when_it_would_be_first() -> None:
    four, one = budgets(4, 1).cells

    def queue() -> WorkQueue:
        return WorkQueue([four, one], [], lambda cell: cell.threat.eps, after=smaller_budgets([four, one]))

    waiting = queue()
    assert len(waiting) == 2
    first = waiting.next(0)
    assert first is not None and first.cell == one
    assert waiting.next(1) is None
    waiting.cell_done(one)
    second = waiting.next(0)
    assert second is not None and second.cell == four
    alone = WorkQueue([four], [], lambda cell: 1.0, after=smaller_budgets([four, one]))
    assert alone.next(0) is not None  # the smaller one is not part of this run's work


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str] | None]:
    """Makes the fake workbench share budgets; what each cell was handed, by its id, in the order of work."""
    seen: dict[str, list[str] | None] = {}
    plain = fakes.FakeBench.cell

    def cell(self: fakes.FakeBench, task: Task, of: Cell, watch: Any) -> CellDone:
        done = plain(self, task, of, watch)
        seen[of.id] = None if task.carried is None else task.carried.sample_id.tolist()
        if task.carried is None:
            return done
        ids = done.outcomes.sample_id.tolist()
        rows = rows_left(ids, task.carried)
        left = {name: column[rows] for name, column in done.outcomes.columns()}
        return with_carried(replace(done, outcomes=Outcomes(**left)), task.carried, ids, task.origin)

    monkeypatch.setattr(fakes.FakeBench, "cell", cell)
    return seen


def go(grid: Plan, store: Store, *, share: bool = True, shard_size: int = 500) -> None:
    machine = Machine(jobs=1, device="cpu", workbench="fakes:FakeBench", share_budgets=share, shard_size=shard_size)
    report = run_plan(grid, store, machine, Reporter())
    assert report.exit_code in (0, 1)


@pytest.mark.parametrize("shard_size", [500, 5])
def test_a_run_hands_on_what_is_broken_and_records_it(tmp_path: Path, carried: Any, shard_size: int) -> None:
    grid = budgets(4, 1, 2)
    store = Store(tmp_path / "shared")
    go(grid, store, shard_size=shard_size)
    four, one, two = (store.outcomes(cell.id) for cell in grid.cells)
    assert list(carried) == [grid.cells[place].id for place in (1, 2, 0)]
    assert carried[grid.cells[1].id] is None
    assert carried[grid.cells[2].id] == one.sample_id[one.broken].tolist()
    assert not (one.broken & ~two.broken).any() and not (two.broken & ~four.broken).any()
    assert (four.extra[COLUMN] == two.broken).all()
    assert store.record(grid.cells[0].id).effective[COLUMN] == {"cell": grid.cells[2].id, "eps": 2 / 255}
    assert COLUMN not in one.extra


def test_the_numbers_do_not_depend_on_where_a_run_was_cut(tmp_path: Path, carried: Any) -> None:
    grid = budgets(4, 1, 2)
    whole, cut = Store(tmp_path / "whole"), Store(tmp_path / "cut")
    go(grid, whole)
    go(Plan(grid.suite, (grid.cells[1],)), cut)
    go(grid, cut)
    for cell in grid.cells:
        assert whole.outcomes(cell.id).to_bytes() == cut.outcomes(cell.id).to_bytes()


def test_what_other_prompts_broke_is_not_carried_and_the_run_says_that_they_differ(
    tmp_path: Path, carried: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, store, said = budgets(4, 1), Store(tmp_path), []
    four, one = grid.cells
    go(Plan(grid.suite, (one,)), store)
    shutil.rmtree(store.fit_path(one.fit.id))
    monkeypatch.setenv("FAKE_PROMPTS", "others")
    monkeypatch.setattr(Reporter, "message", lambda self, text: said.append(text))
    go(grid, store)
    assert carried[four.id] is None and COLUMN not in store.outcomes(four.id).extra
    assert len(said) == 1 and "other prompts than 1 stored cells" in said[0] and "--force" in said[0]
    assert not store.has_prompts_of(store.record(one.id)) and store.has_prompts_of(store.record(four.id))


def test_without_the_option_nothing_is_shared_and_a_failed_budget_is_not_waited_for(
    tmp_path: Path, carried: Any
) -> None:
    go(budgets(4, 1), Store(tmp_path / "plain"), share=False)
    assert set(carried.values()) == {None}
    grid = budgets(4, 1, attack="pgd:raise")
    go(grid, Store(tmp_path / "failed"))
    assert set(Store(tmp_path / "failed").statuses().values()) == {"error"}


def test_a_shared_verdict_is_the_plain_one_or_lower_and_costs_less(tmp_path: Path) -> None:
    suite = Suite(
        name="s", backbones=("tiny-clean",), methods=("zero_shot",), datasets=("fashion",), attacks=("pgd(steps=5)",),
        eps=(1 / 255, 3 / 255), seeds=(1,), shots=(1,), limit=20,
    )  # fmt: skip
    small, large = plan(resolve(suite, Selection())).cells
    stages = Stages(Settings(fits=str(tmp_path / "fits"), checkpoints=str(tmp_path / "checkpoints"), threads=1))
    fit = stages.run(Task(fit=small.fit), lambda progress: None)
    assert isinstance(fit, FitDone)
    folder = tmp_path / "fits" / small.fit.id
    folder.mkdir(parents=True)
    for name, content in fit.files.items():
        (folder / name).write_bytes(content)

    def measure(cell: Cell, **more: Any) -> CellDone:
        done = stages.run(Task(fit=cell.fit, cell=cell, **more), lambda progress: None)
        assert isinstance(done, CellDone), done
        return done

    first, plain = measure(small), measure(large)
    shared = measure(large, carried=broken_part(first.outcomes), origin={"cell": small.id})
    stages.close()
    assert 0 < first.outcomes.broken.sum() < 20
    assert not (plain.outcomes.broken & ~shared.outcomes.broken).any()
    assert (shared.outcomes.broken == plain.outcomes.broken | first.outcomes.broken).all()
    assert (shared.outcomes.extra["norm"] <= 3 / 255 + 1e-6).all()
    assert shared.outcomes.sample_id.tolist() == plain.outcomes.sample_id.tolist()
    assert shared.timing["backwards"] < plain.timing["backwards"]
    assert shared.metrics["clean_accuracy"] == plain.metrics["clean_accuracy"]
