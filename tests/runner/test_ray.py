"""On a Ray cluster the records are those of the local executor, whatever happens to its nodes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import make_plan
from test_driver import go
from test_kill import essence

from apd_bench.errors import EXIT_CELLS_FAILED, EXIT_DONE, MissingPrerequisite, UsageError
from apd_bench.runner.machine import Machine
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.session import run_plan
from apd_bench.store import Store

ray: Any = pytest.importorskip("ray", reason="the extra is not installed: pip install '.[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

from apd_bench.runner.ray_executor import share_of_gpus  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]
MACHINE = Machine(executor="ray", device="cpu", workbench="fakes:FakeBench")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, log: Callable[[], list[str]]) -> Iterator[Any]:
    """Three nodes: a head without processors, so that no task runs there, and two workers that keep the log."""
    monkeypatch.setenv("FAKE_SECONDS", "0.1")  # nodes inherit what is set when they start
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.workers = [made.add_node(num_cpus=1), made.add_node(num_cpus=1)]
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_cluster_that_loses_a_node_completes_every_cell_as_the_local_executor_does(
    cluster: Any, tmp_path: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan()
    local, far = Store(tmp_path / "local"), Store(tmp_path / "far")
    monkeypatch.setenv("FAKE_SECONDS", "0")
    go(plan, local)
    seen = len(log())
    done_at_kill: list[int] = []

    def kill_a_node() -> None:
        deadline = time.monotonic() + 120
        while not any(line.startswith("end-cell") for line in log()[seen:]) and time.monotonic() < deadline:
            time.sleep(0.02)
        done_at_kill.append(len(far.statuses()))
        cluster.remove_node(cluster.workers[0], allow_graceful=False)

    killer = threading.Thread(target=kill_a_node)
    killer.start()
    report = run_plan(plan, far, MACHINE, Reporter())
    killer.join()
    assert report.exit_code == EXIT_DONE
    assert len(report.computed) == len(plan.cells) == 8
    assert done_at_kill[0] < 8
    assert essence(local) == essence(far)  # all but times and places


def test_an_error_on_a_worker_is_a_record_and_shards_merge(cluster: Any, tmp_path: Path) -> None:
    plan = make_plan(methods=("one",), attacks=("pgd", "cw:raise"))
    far = Store(tmp_path / "far")
    machine = Machine(executor="ray", device="cpu", workbench="fakes:FakeBench", shard_size=4)
    report = run_plan(plan, far, machine, Reporter())
    assert report.exit_code == EXIT_CELLS_FAILED
    assert len(report.computed) == 2 and len(report.failures) == 2
    local = Store(tmp_path / "local")
    go(make_plan(methods=("one",), attacks=("pgd",)), local)
    assert [record.metrics for record in far.records() if record.done] == [record.metrics for record in local.records()]
    assert run_plan(plan, far, machine, Reporter()).to_do == 2  # a new driver does only what is left


def test_no_cluster_at_an_address_is_one_sentence(tmp_path: Path) -> None:
    machine = Machine(executor="ray", address="127.0.0.1:1", device="cpu", workbench="fakes:FakeBench")
    with pytest.raises(MissingPrerequisite, match="no Ray cluster at"):
        run_plan(make_plan(), Store(tmp_path / "far"), machine, Reporter())


def test_a_cluster_with_gpus_gives_each_task_one_whatever_the_driver_has(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=4, num_gpus=2)  # as Ray counts them; the fake workbench computes nothing on them
    cluster.wait_for_nodes()
    far = Store(tmp_path / "far")
    machine = Machine(executor="ray", workbench="fakes:FakeBench")
    assert run_plan(make_plan(methods=("one",)), far, machine, Reporter()).exit_code == EXIT_DONE
    seen = {(record.environment["device"], record.environment["visible"]) for record in far.records()}
    assert seen <= {("cuda", "0"), ("cuda", "1")} and seen


@pytest.mark.parametrize(
    ("device", "jobs", "there", "expected"),
    [
        ("auto", None, 0, ("cpu", 0.0)),
        ("auto", None, 4, ("cuda", 1.0)),
        ("cpu", 8, 4, ("cpu", 0.0)),
        ("cuda", 4, 8, ("cuda", 1.0)),
        ("cuda", 3, 1, ("cuda", 0.3333)),
    ],
)
def test_tasks_take_a_gpu_or_a_share_of_one(
    device: str, jobs: int | None, there: float, expected: tuple[str, float]
) -> None:
    assert share_of_gpus(device, jobs, there) == expected


def test_gpus_that_cannot_be_had_are_one_sentence() -> None:
    with pytest.raises(MissingPrerequisite, match="has no GPU"):
        share_of_gpus("cuda", None, 0)
    with pytest.raises(UsageError, match="Ray chooses"):
        share_of_gpus("cuda:1", None, 4)
