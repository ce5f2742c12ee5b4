"""Where a run works: devices are found here, or left to the cluster; what is missing is said in one sentence."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from fakes import make_plan

from apd_bench.core.errors import MissingPrerequisite, UsageError
from apd_bench.core.options import RunOptions
from apd_bench.records.store import Store
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.session import device_for, pick_device, run_plan, threads_for


def test_on_ray_the_cluster_decides_about_devices_that_this_machine_may_lack() -> None:
    assert device_for(RunOptions(executor="ray")) == "auto"
    assert device_for(RunOptions(executor="ray", device="cuda")) == "cuda"
    assert device_for(RunOptions(device="cpu")) == "cpu"


def test_a_device_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(MissingPrerequisite, match="There is no device 'cuda:99' here"):
        pick_device("cuda:99")
    with pytest.raises(UsageError, match="tpu"):
        pick_device("tpu")


def test_tiny_models_have_one_thread_whatever_the_number_of_jobs() -> None:
    assert {threads_for(True, jobs, "cpu") for jobs in (1, 2, 64)} == {1}
    assert threads_for(False, 10_000, "cpu") == 1
    assert threads_for(True, 1, "cuda") is None


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_ray_that_is_not_installed_is_one_sentence_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match=r"needs Ray.*apd-bench\[ray\]"):
        run_plan(make_plan(), Store(tmp_path / "results"), RunOptions(executor="ray"), Reporter())
