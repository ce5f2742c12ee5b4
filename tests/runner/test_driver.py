"""The driver computes each thing once, goes on from any end, and one bad cell costs only itself."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes import SAMPLES, make_plan

from apd_bench.core.errors import EXIT_CELLS_FAILED, EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, MissingPrerequisite
from apd_bench.core.options import RunOptions
from apd_bench.records.store import Store
from apd_bench.runner import session
from apd_bench.runner.plan import Plan
from apd_bench.runner.reporter import JsonReporter, Reporter
from apd_bench.runner.session import run_plan

JOBS = pytest.mark.parametrize("jobs", [1, 2])


def go(plan, store, *, jobs=1, strategy="unfinished", **more):
    options = RunOptions(jobs=jobs, device="cpu", shard=int(str(more.pop("shard_size", 500))))
    workbench, reporter = str(more.pop("bench", "fakes:FakeBench")), more.pop("reporter", None) or Reporter()
    return run_plan(plan, store, options, reporter, strategy=strategy, workbench=workbench, **more)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def ends(lines, kind):
    return [line.split()[1] for line in lines if line.startswith(f"end-{kind}")]


@JOBS
def test_every_cell_is_measured_once_and_every_fit_trained_once(store, log, jobs):
    plan = make_plan()
    report = go(plan, store, jobs=jobs)
    assert report.exit_code == EXIT_DONE
    assert sorted(ends(log(), "cell")) == sorted(cell.id for cell in plan.cells)
    assert sorted(ends(log(), "fit")) == sorted(plan.fits)
    assert store.statuses() == {cell.id: "success" for cell in plan.cells}
    record = next(Store(store.path).records())
    assert record.environment["python"] and record.created.endswith("+00:00")
    assert not list((store.path / "checkpoints").glob("*"))


def test_a_suite_that_grew_computes_the_difference_only(store, log):
    go(make_plan(datasets=("a",)), store)
    before = len(ends(log(), "cell"))
    report = go(make_plan(datasets=("a", "b"), attacks=("pgd", "cw", "fgsm")), store)
    assert before == 4
    assert len(report.computed) == 12 - 4
    assert len(set(ends(log(), "cell"))) == len(ends(log(), "cell")) == 12
    assert len(report.fits_computed) == 2 and report.fits_reused == 2


@JOBS
def test_an_error_is_a_record_with_a_traceback_and_the_others_go_on(store, jobs):
    plan = make_plan(attacks=("pgd", "cw:raise"))
    report = go(plan, store, jobs=jobs)
    assert report.exit_code == EXIT_CELLS_FAILED
    assert len(report.computed) == 4 and len(report.failures) == 4
    bad = next(record for record in store.records() if record.status == "error")
    assert bad.error is not None
    assert bad.error["type"] == "ZeroDivisionError"
    assert "the attack divided by zero" in bad.error["traceback"]
    assert [(failure.message, number) for failure, number in report.messages()] == [("the attack divided by zero", 4)]


def test_a_fit_that_fails_fails_its_cells_and_no_others(store, log):
    report = go(make_plan(methods=("one", "two:raise")), store)
    assert len(report.computed) == 4
    assert len(ends(log(), "cell")) == 4
    errors = [record.error for record in store.records() if record.status == "error"]
    assert [error["stage"] for error in errors if error] == ["fit"] * 4


def test_force_measures_and_trains_again_and_keeps_the_success_if_that_fails(store, log):
    plan = make_plan(methods=("one",), datasets=("a",))
    go(plan, store)
    first = [record.outcomes for record in store.records()]
    assert len(go(plan, store, strategy="force").computed) == 2
    assert len(ends(log(), "cell")) == 4 and len(ends(log(), "fit")) == 2
    assert [record.outcomes for record in store.records()] == first


@JOBS
def test_a_workbench_that_cannot_be_made_is_an_error_not_a_hang(store, jobs):
    if jobs == 1:
        with pytest.raises(MissingPrerequisite, match="No workbench"):
            go(make_plan(), store, bench="fakes:BrokenBench")
        return
    report = go(make_plan(), store, jobs=jobs, bench="fakes:BrokenBench")
    assert report.exit_code == EXIT_USAGE
    assert (report.messages()[0][0].message, report.messages()[0][0].hint) == ("No workbench here.", "Buy one.")


def test_a_worker_that_dies_once_costs_nothing(store, log):
    plan = make_plan(attacks=("pgd", "cw:die-once"))
    report = go(plan, store, jobs=2)
    assert report.exit_code == EXIT_DONE
    assert report.deaths >= 1
    assert set(store.statuses().values()) == {"success"}
    assert sorted(set(ends(log(), "cell"))) == sorted(cell.id for cell in plan.cells)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_worker_that_lost_its_gpu_is_replaced_and_its_cell_tried_once_more(store, log, monkeypatch, jobs):
    monkeypatch.setattr(session, "pick_device", lambda asked: "cuda")
    monkeypatch.setattr(session, "visible_gpus", lambda: ["0"])
    plan = make_plan(methods=("one",), attacks=("cw:sticky-once", "pgd", "fgsm:sticky", "apgd-ce"))
    report = run_plan(plan, store, RunOptions(jobs=jobs), Reporter(), workbench="fakes:FakeBench")
    assert report.exit_code == EXIT_CELLS_FAILED and len(report.computed) == 6
    errors = {record.cell.attack.name: record.error and record.error["message"] for record in store.records()}
    assert errors == dict.fromkeys(("cw", "pgd", "apgd-ce")) | {"fgsm": "CUDA error: device-side assert triggered"}
    starts = [line for line in log() if line.startswith("start-cell")]
    assert len(starts) == len(plan.cells) + 4  # no neighbour was tried twice


def test_a_worker_that_dies_always_is_an_error_record_and_its_neighbours_are_not_blamed(store):
    plan = make_plan(methods=("one",), attacks=("pgd", "cw:die"))
    report = go(plan, store, jobs=2)
    assert report.exit_code == EXIT_CELLS_FAILED
    assert len(report.computed) == 2 and len(report.failures) == 2
    kinds = {record.cell.attack.name: record.error and record.error["type"] for record in store.records()}
    assert kinds == {"pgd": None, "cw": "WorkerDied"}


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@JOBS
def test_a_damaged_file_is_named_kept_and_measured_again(store, log, jobs, suffix):
    plan = make_plan()
    go(plan, store)
    path = next(store.cells.rglob(f"{plan.cells[0].id}*{suffix}"))
    path.write_bytes(path.read_bytes()[:50])
    report = go(plan, Store(store.path), jobs=jobs)
    assert report.computed == [plan.cells[0].id]
    assert path.name in report.damaged[0]
    assert [moved.stat().st_size for moved in path.parent.glob(f"*{suffix}.damaged")] == [50]
    assert go(plan, Store(store.path)).to_do == 0


def test_a_damaged_fit_is_trained_again_and_kept(store, log):
    plan = make_plan(methods=("one",), datasets=("a",))
    go(plan, store)
    fit_id = next(iter(plan.fits))
    (store.fit_path(fit_id) / "state").write_text("other")
    report = go(make_plan(methods=("one",), datasets=("a",), attacks=("pgd", "cw", "fgsm")), Store(store.path))
    assert report.fits_computed == [fit_id]
    assert fit_id in report.damaged[0]
    assert (store.fits / f"{fit_id}.damaged" / "state").read_text() == "other"


def test_a_full_disk_ends_the_run_with_one_sentence_and_nothing_lost(store, log, monkeypatch):
    plan = make_plan()
    real, calls = Store.put, []

    def put(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise MissingPrerequisite("The disk is full: x could not be written.")
        return real(self, *arguments)

    monkeypatch.setattr(Store, "put", put)
    with pytest.raises(MissingPrerequisite, match="disk is full"):
        go(plan, store)
    assert len(Store(store.path).statuses()) == 3
    monkeypatch.undo()
    assert len(go(plan, Store(store.path)).computed) == 5


def test_a_clock_that_is_set_back_repeats_nothing(store, log, monkeypatch):
    plan = make_plan()
    go(make_plan(datasets=("a",)), store)
    monkeypatch.setattr("apd_bench.runner.driver.utc_now", lambda: "1999-12-31T23:59:59+00:00")
    monkeypatch.setattr(time, "time", lambda: 946684799.0)
    for path in store.path.rglob("*"):
        os.utime(path, (2**32, 2**32))  # all that is there comes from the future
    report = go(plan, Store(store.path))
    assert (report.already_done, len(report.computed), report.exit_code) == (4, 4, EXIT_DONE)
    assert 0 <= report.seconds < 600
    assert go(plan, Store(store.path)).to_do == 0
    assert len(ends(log(), "cell")) == len(set(ends(log(), "cell"))) == 8 and len(ends(log(), "fit")) == 4


class Interrupting(Reporter):
    """Presses Ctrl-C when the first cell is on its way."""

    def __init__(self, times=1):
        self.times = times
        self.messages = []

    def tick(self, progress):
        for _ in range(self.times):
            os.kill(os.getpid(), signal.SIGINT)
        self.times = 0

    def message(self, text):
        self.messages.append(text)


@JOBS
def test_ctrl_c_stops_at_the_next_batch_and_the_same_command_goes_on(store, log, jobs, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    plan = make_plan()
    reporter = Interrupting()
    handler = signal.getsignal(signal.SIGINT)
    report = go(plan, store, jobs=jobs, reporter=reporter)
    assert report.exit_code == EXIT_INTERRUPTED
    assert report.interrupted and "press Ctrl-C again" in reporter.messages[0]
    done = {cell for cell, status in store.statuses().items() if status == "success"}
    assert len(done) < len(plan.cells)
    first = log()
    monkeypatch.setenv("FAKE_SECONDS", "0")
    again = go(plan, Store(store.path), jobs=jobs)
    assert again.exit_code == EXIT_DONE
    assert done.isdisjoint(again.computed) and len(done) + len(again.computed) == len(plan.cells)
    assert len(ends(log(), "fit")) == len(set(ends(log(), "fit")))
    batches = [line for line in log() if line.startswith("batch")]
    assert len(batches) == len(set(batches)) == len(plan.cells) * SAMPLES / 4  # checkpoints: no batch ran twice
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(first) < len(log())


@JOBS
def test_a_second_ctrl_c_stops_at_once(store, jobs, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        go(make_plan(datasets=("a", "b", "c", "d")), store, jobs=jobs, reporter=Interrupting(times=2))
    assert time.monotonic() - began < 15
    assert go(make_plan(datasets=("a",)), Store(store.path), jobs=1).exit_code == EXIT_DONE


def test_it_runs_in_a_thread_without_signals_and_writes_the_resolved_run(store):
    reports = []
    thread = threading.Thread(target=lambda: reports.append(go(make_plan(), store)))
    thread.start()
    thread.join()
    assert reports[0].exit_code == EXIT_DONE
    (path,) = (store.path / "runs").glob("*.json")
    assert json.loads(path.read_text())["eps"] == ["4/255"]


def test_workers_end_when_the_driver_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "30")
    script = (
        "from test_driver import go; from fakes import make_plan; from apd_bench.records.store import Store\n"
        "import multiprocessing, threading, time\n"
        "def tell():\n"
        "    while len(multiprocessing.active_children()) < 2: time.sleep(0.05)\n"
        "    print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "if __name__ == '__main__':\n"
        "    threading.Thread(target=tell, daemon=True).start()\n"
        f"    go(make_plan(), Store({str(tmp_path / 'results')!r}), jobs=2)\n"
    )
    path = tmp_path / "killed.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, env=environment) as driver:
        assert driver.stdout is not None
        workers = [int(number) for number in driver.stdout.readline().split()]
        driver.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_json_events_are_one_object_a_line_and_tell_the_whole_story(store):
    stream = io.StringIO()
    go(make_plan(attacks=("pgd", "cw:raise")), store, reporter=JsonReporter(stream))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert events[0]["event"] == "start" and events[0]["to_do"] == 8
    assert events[-1]["event"] == "finish" and events[-1]["failed"] == 4 and events[-1]["exit_code"] == 1
    finished = [event for event in events if event["event"] == "task_finished" and event["kind"] == "cell"]
    assert len(finished) == 8
    assert sum("metrics" in event for event in finished) == 4


def test_a_run_says_that_a_fit_ended_at_other_prompts(store, log, monkeypatch):
    grid = make_plan(methods=("one",), datasets=("a",))
    first, second = grid.cells
    go(Plan(grid.suite, (first,)), store)
    shutil.rmtree(store.fit_path(first.fit.id))
    monkeypatch.setenv("FAKE_PROMPTS", "others")
    said = []
    monkeypatch.setattr(Reporter, "message", lambda self, text: said.append(text))
    go(grid, store)
    assert len(said) == 1 and "other prompts than 1 stored cells" in said[0] and "--force" in said[0]
    assert not store.has_prompts_of(store.record(first.id)) and store.has_prompts_of(store.record(second.id))
