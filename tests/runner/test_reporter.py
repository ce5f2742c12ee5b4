"""What a run shows: every line fits the terminal, whatever its width, and says what happened."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import make_plan
from rich.console import Console
from test_driver import go
from test_live import lines_of

from apd_bench.core.errors import UsageError
from apd_bench.core.options import RunOptions, options_from_python
from apd_bench.records.store import Store
from apd_bench.runner.cost import stages_of, summary
from apd_bench.runner.live import LiveReporter
from apd_bench.runner.queue import WorkQueue
from apd_bench.runner.report import RunReport
from apd_bench.runner.reporter import JsonReporter, PlainReporter, Reporter, closing, duration, opening
from apd_bench.runner.session import make_reporter
from apd_bench.runner.tasks import Failure, FitDone, Progress, Task


def test_the_live_view_counts_what_is_done_and_what_failed(tmp_path: Path) -> None:
    stream = io.StringIO()
    reporter = LiveReporter(Console(file=stream, width=80, height=24, force_terminal=False))
    go(make_plan(attacks=("pgd", "cw:raise")), Store(tmp_path / "results"), reporter=reporter)
    grid = "\n".join(lines_of(reporter))
    assert grid.count("2/4 2!") == 2 and grid.count("!!") == 2
    assert "Measured 4 cells and trained 4 fits" in stream.getvalue()
    assert "4 cells: ZeroDivisionError: the attack divided by zero" in stream.getvalue()


def test_plain_lines_name_every_cell_and_its_result(tmp_path: Path) -> None:
    stream = io.StringIO()
    go(make_plan(methods=("one",), datasets=("a",)), Store(tmp_path / "results"), reporter=PlainReporter(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2 cells: 2 to measure, 1 fit to train."
    assert lines[1].startswith("[fit] ") and lines[2].startswith("[1/2] ") and lines[3].startswith("[2/2] ")
    assert "clean" in lines[2] and "robust" in lines[2] and "(n=12" in lines[2]


def test_plain_lines_tell_now_and_then_how_far_a_long_cell_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apd_bench.runner.reporter._EVERY", 0.0)
    stream, cell = io.StringIO(), make_plan().cells[0]
    reporter, task = PlainReporter(stream), Task(fit=cell.fit, cell=cell)
    reporter.start(RunReport(to_do=1), WorkQueue([], []), make_plan())
    stream.truncate(stream.seek(0))
    reporter.task_started(task)
    reporter.tick({task.id: Progress()})  # nothing is known yet
    reporter.tick({task.id: Progress(done=6, total=12, broken=4)})
    assert stream.getvalue() == "  ... one a pgd: 6/12 samples, 4 broken\n"
    reporter.tick({task.id: Progress(done=6, total=12, broken=4)})
    assert stream.getvalue().count("\n") == 1  # nothing has changed


def test_no_plain_line_is_longer_than_120_signs_and_what_happened_stands_in_it() -> None:
    stream = io.StringIO()
    plan = make_plan(methods=("a-method" * 20,), seeds=(1, 2))
    reporter, cell = PlainReporter(stream), plan.cells[0]
    report = RunReport(planned=44, to_do=44, fits_to_do=22)
    reporter.start(report, WorkQueue(plan.cells, plan.fits.values()), plan)
    reporter.task_finished(Task(fit=cell.fit, cell=cell), Failure(type="E", message="why " * 60))
    reporter.task_finished(Task(fit=cell.fit), FitDone(files={}, card={"seconds": 3}))
    lines = stream.getvalue().splitlines()
    assert [len(line) for line in lines[1:]] == [120, 120] and lines[2].endswith("…: trained in 3.0 s")


def test_what_learns_nothing_is_no_fit_to_train(tmp_path: Path) -> None:
    plan = make_plan(methods=("one",), datasets=("a",))
    frozen = replace(plan.cells[0].fit.method, objective=None)
    cells = tuple(replace(cell, fit=replace(cell.fit, method=frozen)) for cell in plan.cells)
    stream = io.StringIO()
    report = go(replace(plan, cells=cells), Store(tmp_path / "results"), reporter=PlainReporter(stream))
    assert stream.getvalue().startswith("2 cells: 2 to measure, 0 fits to train.\n[1/2] one a ")
    assert "Measured 2 cells and trained 0 fits" in stream.getvalue() and report.fits_computed == []


def test_the_opening_tells_what_is_reused_and_the_closing_how_to_go_on() -> None:
    report = RunReport(planned=9, already_done=4, to_do=5, fits_to_do=1, fits_reused=2, damaged=["x is damaged."])
    assert opening(report) == [
        "warning: x is damaged.",
        "9 cells, 4 already done: 5 to measure, 1 fit to train (2 reused).",
    ]
    assert opening(RunReport(planned=9, already_done=9)) == ["Nothing to compute: 9 cells, all done."]
    report = RunReport(planned=3, to_do=3, computed=["a"], interrupted=True, seconds=61)
    assert closing(report)[-1] == "Interrupted with 2 cells and fits left; the same command goes on from here."
    failure = Failure(type="KeyError", message="no", hint="do this", prerequisite=True)
    failed = replace(report, interrupted=False, failures={"b": failure, "c": failure})
    assert closing(failed)[1] == "apd-bench: error: 2 cells: no do this"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (266_000, "3 d 1 h")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_display_is_chosen_by_name_and_lines_are_plain_where_there_is_no_terminal() -> None:
    assert isinstance(make_reporter(RunOptions()), PlainReporter)  # the test runner's standard error is no terminal
    assert isinstance(make_reporter(RunOptions(display="json")), JsonReporter)
    assert type(make_reporter(RunOptions(display="none"))) is Reporter
    assert isinstance(make_reporter(RunOptions(display="rich")), LiveReporter)
    assert type(make_reporter(RunOptions(display="rich", quiet=True))) is Reporter
    with pytest.raises(UsageError, match="cinema"):
        options_from_python({"display": "cinema"})


def test_the_cost_adds_up_by_stage_and_tells_the_time_outside_the_model(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    report = go(make_plan(), store)
    stages = stages_of(store, map(store.record, report.computed), report.fits_computed)
    assert {stage.name: stage.runs for stage in stages} == {"fit": 4, "pgd": 4, "cw": 4}
    assert [stage.forwards for stage in stages] == [40, 400, 400]
    lines = summary(stages, 3.0)
    assert "25%" in lines[2] and "25.0% of attack time was outside the model" in lines[-1]
