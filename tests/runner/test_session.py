"""Where a run works: devices are found here, or left to the cluster; what is missing is said in one sentence."""

import os

import pytest
import torch
from fakes import make_plan

from apd_bench.core.errors import EXIT_DONE, MissingPrerequisite, UsageError
from apd_bench.core.options import RunOptions
from apd_bench.records.store import Store
from apd_bench.runner import session
from apd_bench.runner.executor import InProcess
from apd_bench.runner.pool import Pool
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.session import device_for, pick_device, run_plan, threads_for
from apd_bench.runner.tasks import Settings


def test_devices_and_threads_are_those_of_the_cluster_or_of_this_machine():
    assert device_for(RunOptions(executor="ray")) == "auto"
    assert device_for(RunOptions(executor="ray", device="cuda")) == "cuda"
    assert device_for(RunOptions(device="cpu")) == "cpu"
    with pytest.raises(MissingPrerequisite, match="There is no device 'cuda:99' here"):
        pick_device("cuda:99")
    with pytest.raises(UsageError, match="tpu"):
        pick_device("tpu")
    with pytest.raises(UsageError, match="MPS has no float64"):
        pick_device("mps")
    assert {threads_for(True, jobs, "cpu") for jobs in (1, 2, 64)} == {1}
    assert threads_for(False, 10_000, "cpu") == 1
    assert threads_for(True, 1, "cuda") is None


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_an_executor_that_is_not_installed_is_one_sentence_with_the_command(tmp_path, monkeypatch, name):
    monkeypatch.setattr(session, "find_spec", lambda package: None)
    with pytest.raises(MissingPrerequisite, match=rf"--executor {name} needs .*apd-bench\[{name}\]"):
        run_plan(make_plan(), Store(tmp_path / "results"), RunOptions(executor=name), Reporter())


@pytest.mark.parametrize(("visible", "jobs", "work", "seen", "share"), [
    ("", None, 9, ["0", "1"], 1.0),
    ("3,GPU-aa", None, 9, ["3", "GPU-aa"], 1.0),
    ("", 3, 9, ["0", "1"] * 3, 1 / 3),
    ("", 3, 4, ["0", "1"] * 2, 1 / 2),
    ("", 1, 1, None, 1.0),
])  # fmt: skip
def test_cuda_is_every_visible_gpu_a_worker_with_its_memory(tmp_path, monkeypatch, visible, jobs, work, seen, share):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    settings = Settings(fits=str(tmp_path), checkpoints=str(tmp_path), device="cuda")
    executor = session.local_executor(settings, RunOptions(jobs=jobs), work)
    assert isinstance(executor, InProcess) is (seen is None)
    if isinstance(executor, Pool):
        assert [executor._inherited(place)["CUDA_VISIBLE_DEVICES"] for place in range(executor.slots)] == seen
        assert executor._settings.share == share and executor._settings.threads


def test_a_worker_inherits_the_gpu_of_its_place_and_nobody_else_does(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setenv("FAKE_SECONDS", "0.2")  # long enough for both workers to have work
    monkeypatch.setattr(session, "pick_device", lambda asked: "cuda")
    monkeypatch.setattr(session, "visible_gpus", lambda: ["5", "7"])
    store = Store(tmp_path / "results")
    assert run_plan(make_plan(), store, RunOptions(), Reporter(), workbench="fakes:FakeBench").exit_code == EXIT_DONE
    assert {record.environment["visible"] for record in store.records()} == {"5", "7"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"
