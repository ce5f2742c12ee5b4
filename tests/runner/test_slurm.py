"""On Slurm the records are those of the local executor; jobs outlive their driver, and none is submitted twice."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import BATCH, SAMPLES, make_plan
from slurm_stand_in import install
from test_driver import go
from test_kill import essence

from apd_bench.core.errors import EXIT_CELLS_FAILED, EXIT_DONE, EXIT_INTERRUPTED, MissingPrerequisite, UsageError
from apd_bench.core.options import RunOptions
from apd_bench.records.store import Store
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.session import run_plan
from apd_bench.runner.tasks import Settings, Stopped, Task

pytest.importorskip("submitit", reason="the extra is not installed: pip install '.[slurm]'")
from apd_bench.runner import slurm_executor
from apd_bench.runner.slurm_executor import SlurmExecutor, minutes, sbatch_options

pytestmark = pytest.mark.filterwarnings("ignore")
OPTIONS = RunOptions(executor="slurm", slurm=("partition=gpu,gres=gpu:1,time=1:00:00",), device="cpu")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of a Slurm that the test brings, with its programs first on the path."""
    home = tmp_path / "slurm"
    monkeypatch.setenv("PATH", str(install(home)) + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    made = slurm_executor.SlurmExecutor
    monkeypatch.setattr(slurm_executor, "SlurmExecutor", lambda *a, **k: made(*a, **k, poll=0.05, look=0.2))
    yield home
    for job in (home / "jobs").glob("[0-9]*"):
        subprocess.run(["scancel", job.name], check=True)


def on_slurm(plan, store, reporter=None, **more):
    return run_plan(plan, store, replace(OPTIONS, **more), reporter or Reporter(), workbench="fakes:FakeBench")


class Acting(Reporter):
    """Calls `act` at every look at the tasks."""

    def __init__(self, act):
        self.act = act

    def tick(self, progress):
        self.act(progress)


def test_fits_then_cells_are_arrays_whose_records_are_those_of_the_local_executor(slurm, tmp_path, log):
    plan, far, local = make_plan(), Store(tmp_path / "far"), Store(tmp_path / "local")
    report = on_slurm(plan, far)
    assert report.exit_code == EXIT_DONE and len(report.computed) == len(plan.cells) == 8
    go(plan, local)
    assert essence(far) == essence(local)
    scripts = (slurm / "scripts").read_text()
    told = ("partition=gpu", "gres=gpu:1", "time=1:00:00", "array=0-3%4")
    assert {f"#SBATCH --{option}" for option in told} <= set(scripts.splitlines())
    assert scripts.count("#!/bin/bash") < len(plan.cells) + len(plan.fits)  # arrays, not a job a task
    assert not list(far.path.glob("checkpoints/*/job-*"))
    assert on_slurm(plan, far).to_do == 0


def test_a_driver_that_is_gone_leaves_its_jobs_and_the_same_command_takes_them_over(slurm, tmp_path, log):
    plan, far = make_plan(), Store(tmp_path / "far")

    def leave(progress):
        if (slurm / "jobs").exists():
            raise SystemExit  # before any job could start

    hold = slurm / "hold"
    hold.touch()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(SlurmExecutor, "close", lambda self, *, kill=False: None)  # a killed driver closes nothing
        on_slurm(plan, far, Acting(leave))
    submitted = (slurm / "scripts").read_text().count("#!/bin/bash")
    assert submitted == 1 and not log()
    hold.unlink()
    time.sleep(0.5)  # some of the jobs end without a driver
    assert on_slurm(plan, far).exit_code == EXIT_DONE
    starts = [line for line in log() if line.startswith("start")]
    assert len(starts) == len(set(starts)) == len(plan.cells) + len(plan.fits)  # nothing was done twice


def test_a_job_that_slurm_ends_costs_its_cell_alone_and_says_where_its_log_is(slurm, tmp_path):
    plan, far = make_plan(methods=("one",), attacks=("pgd", "cw:die", "fgsm:raise")), Store(tmp_path / "far")
    report = on_slurm(plan, far)
    assert report.exit_code == EXIT_CELLS_FAILED and len(report.computed) == 2 and len(report.failures) == 4
    told = {failure.type: failure for failure in report.failures.values()}
    lost, raised = told["JobLost"], told["ZeroDivisionError"]
    assert "state FAILED" in lost.message and ".err" in lost.hint and "divided" in raised.traceback


def test_ctrl_c_cancels_what_waits_and_stops_what_works_and_the_same_command_goes_on(slurm, tmp_path, log, monkeypatch):
    plan, far = make_plan(methods=("one",)), Store(tmp_path / "far")
    monkeypatch.setenv("FAKE_SECONDS", "1.5")
    pressed = []

    def press(progress):
        if not pressed and any(line.startswith("batch") for line in log()):
            pressed.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    report = on_slurm(plan, far, Acting(press))
    assert pressed and report.exit_code == EXIT_INTERRUPTED and report.cancelled > 0
    batches = [line for line in log() if line.startswith("batch")]
    assert batches and len(batches) < len(plan.cells) * SAMPLES / BATCH
    monkeypatch.setenv("FAKE_SECONDS", "0")
    assert on_slurm(plan, far).exit_code == EXIT_DONE
    assert set(far.statuses().values()) == {"success"}


@pytest.mark.parametrize(("text", "said"), [
    ("partition=none,time=10", "Slurm refused the jobs: .*invalid partition|Batch job submission failed"),
    ("partition=gpu", "time limit of the jobs is missing"),
    ("time=soon", "'soon'"),
    ("time=10,array=0-3", "'array' of sbatch is written by the run"),
    ("gpu", "KEY=VALUE"),
    ("time=1\nrm -rf x", "KEY=VALUE"),
])  # fmt: skip
def test_what_slurm_or_we_refuse_is_one_sentence_and_no_record(slurm, tmp_path, text, said):
    far = Store(tmp_path / "far")
    with pytest.raises((MissingPrerequisite, UsageError), match=said):
        on_slurm(make_plan(), far, slurm=(text,))
    assert not far.statuses()


def test_a_machine_without_slurm_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingPrerequisite, match=r"needs Slurm's 'sbatch'.*login node"):
        on_slurm(make_plan(), Store(tmp_path / "far"))


def test_options_of_sbatch_keep_commas_and_times_are_slurms():
    assert sbatch_options(("partition=a,b,gres=gpu:1", "--nodelist=n[1-3,5], time=2-1")) == {
        "partition": "a,b", "gres": "gpu:1", "nodelist": "n[1-3,5]", "time": "2-1",
    }  # fmt: skip
    times = {"90": 90, "90:30": 90, "1:30:00": 90, "2-1": 2940, "2-1:30": 2970, "0-0:0:30": 1}
    assert {text: minutes(text) for text in times} == times


def test_a_job_stops_where_the_driver_asks_and_its_time_limit_puts_it_back(tmp_path):
    import submitit

    folder, task = tmp_path / "job", Task(fit=make_plan().cells[0].fit)
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "stop").touch()
    folder.mkdir()
    settings = Settings(fits=str(tmp_path / "fits"), checkpoints=str(tmp_path / "checkpoints"))
    work = slurm_executor.Work(task, settings, str(folder))
    work()
    assert slurm_executor.read_result(folder) == Stopped()
    again = work.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.function is work
