"""On a Ray cluster the records are those of the local executor, whatever happens to its nodes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes import REAL, SAMPLES, make_plan
from test_driver import go
from test_kill import essence, finished

from apd_bench.core.errors import EXIT_CELLS_FAILED, EXIT_DONE, EXIT_INTERRUPTED, MissingPrerequisite, UsageError
from apd_bench.core.options import RunOptions
from apd_bench.records.store import Store
from apd_bench.runner.plan import plan as make_real_plan
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.selection import describe, resolve
from apd_bench.runner.session import run_plan

ray = pytest.importorskip("ray", reason="the extra is not installed: pip install '.[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

from apd_bench.runner import ray_executor  # noqa: E402
from apd_bench.runner.ray_executor import share_of_gpus  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]
SLOWLY = pytest.mark.parametrize("cluster", ["0.6"], indirect=True)  # a batch takes longer than a report to arrive
FAKE = "fakes:FakeBench"
MACHINE = RunOptions(executor="ray", device="cpu")


@pytest.fixture
def cluster(monkeypatch, log, request):
    """Three nodes: a head without processors, so that no task runs there, and two workers that keep the log."""
    monkeypatch.setenv("FAKE_SECONDS", getattr(request, "param", "0.1"))  # nodes inherit what is set when they start
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.workers = [made.add_node(num_cpus=1), made.add_node(num_cpus=1)]
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_cluster_that_loses_a_node_completes_every_cell_as_the_local_executor_does(
    cluster, tmp_path, log, monkeypatch
):
    plan = make_plan()
    local, far = Store(tmp_path / "local"), Store(tmp_path / "far")
    monkeypatch.setenv("FAKE_SECONDS", "0")
    go(plan, local)
    seen = len(log())
    done_at_kill = []

    def kill_a_node():
        deadline = time.monotonic() + 120
        while not any(line.startswith("end-cell") for line in log()[seen:]) and time.monotonic() < deadline:
            time.sleep(0.02)
        done_at_kill.append(len(far.statuses()))
        cluster.remove_node(cluster.workers[0], allow_graceful=False)

    killer = threading.Thread(target=kill_a_node)
    killer.start()
    report = run_plan(plan, far, MACHINE, Reporter(), workbench=FAKE)
    killer.join()
    assert report.exit_code == EXIT_DONE
    assert len(report.computed) == len(plan.cells) == 8
    assert done_at_kill[0] < 8
    assert essence(local) == essence(far)  # all but times and places


def test_an_error_on_a_worker_is_a_record_and_shards_merge(cluster, tmp_path):
    plan = make_plan(methods=("one",), attacks=("pgd", "cw:raise"))
    far = Store(tmp_path / "far")
    machine = RunOptions(executor="ray", device="cpu", shard=4)
    report = run_plan(plan, far, machine, Reporter(), workbench=FAKE)
    assert report.exit_code == EXIT_CELLS_FAILED
    assert len(report.computed) == 2 and len(report.failures) == 2
    local = Store(tmp_path / "local")
    go(make_plan(methods=("one",), attacks=("pgd",)), local)
    assert [record.metrics for record in far.records() if record.done] == [record.metrics for record in local.records()]
    assert run_plan(plan, far, machine, Reporter(), workbench=FAKE).to_do == 2  # a new driver does only what is left


class Watching(Reporter):
    """Keeps every number that it is told, and calls `act` each time."""

    def __init__(self, act=lambda: None):
        self.act = act
        self.seen = {}

    def tick(self, progress):
        for task_id, item in progress.items():
            self.seen.setdefault(task_id, []).append(item)
        self.act()

    @property
    def under_way(self):
        """The tasks that were seen with a part of their samples done."""
        return {task_id for task_id, items in self.seen.items() if any(0 < item.done < item.total for item in items)}


@SLOWLY
def test_tasks_tell_how_far_they_are(cluster, tmp_path):
    plan, reporter = make_plan(methods=("one",)), Watching()
    assert run_plan(plan, Store(tmp_path / "far"), MACHINE, reporter, workbench=FAKE).exit_code == EXIT_DONE
    assert reporter.under_way == {cell.id for cell in plan.cells}
    for cell in plan.cells:
        done = [item.done for item in reporter.seen[cell.id]]
        assert done == sorted(done) and any(item.broken for item in reporter.seen[cell.id])


@SLOWLY
@pytest.mark.parametrize("for_good", [False, True])
def test_a_board_that_is_lost_costs_numbers_and_nothing_else(cluster, tmp_path, for_good):
    made = []

    def lose():
        if reporter.under_way and not lost:
            lost.update(reporter.under_way)
            ray.kill(made[0].actor, no_restart=for_good)

    class Kept(ray_executor._View):
        def __init__(self):
            super().__init__()
            made.append(self)

    lost = set()
    plan, reporter = make_plan(), Watching(lose)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_executor, "_View", Kept)
        assert run_plan(plan, Store(tmp_path / "far"), MACHINE, reporter, workbench=FAKE).exit_code == EXIT_DONE
    assert lost and (reporter.under_way > lost) is not for_good


@SLOWLY
def test_ctrl_c_ends_the_batch_and_the_same_command_goes_on(cluster, tmp_path, log):
    pressed = []

    def batches():
        return [line for line in log() if line.startswith("batch")]

    def press():
        if reporter.under_way and not pressed:
            pressed.append(len(batches()))
            os.kill(os.getpid(), signal.SIGINT)

    plan, far, reporter = make_plan(), Store(tmp_path / "far"), Watching(press)
    report = run_plan(plan, far, MACHINE, reporter, workbench=FAKE)
    assert report.exit_code == EXIT_INTERRUPTED and report.cancelled > 0
    assert len(batches()) > pressed[0]  # the one that was under way came to its end
    statuses = far.statuses()
    assert sorted(statuses.values()).count("cancelled") == report.cancelled and len(statuses) < len(plan.cells)
    again = run_plan(plan, Store(far.path), MACHINE, Reporter(), workbench=FAKE)
    assert again.exit_code == EXIT_DONE and set(far.statuses().values()) == {"success"}
    assert len(batches()) == len(set(batches())) == len(plan.cells) * SAMPLES / 4  # none ran twice


@pytest.mark.parametrize("cluster", ["60"], indirect=True)
def test_a_second_ctrl_c_ends_at_once(cluster, tmp_path, log):
    presses = [signal.SIGINT, signal.SIGINT]

    def press():
        if presses and any(line.startswith("start-fit") for line in log()):
            os.kill(os.getpid(), presses.pop())

    with pytest.raises(KeyboardInterrupt):
        run_plan(make_plan(), Store(tmp_path / "far"), MACHINE, Watching(press), workbench=FAKE)
    assert not any(line.startswith("end") for line in log())  # nobody waited for the minute that a fit takes


ATTACKS = ("pgd(steps=5)", "autoattack(members=['apgd-ce', 'square'], iterations=5, queries=400)")
LITTLE = {"datasets": ("fashion",), "shots": (1,), "limit": 9, "recipe": {"training": {"epochs": 1}}}
SUITE = REAL.with_options(methods=("zero_shot", "advtp"), attacks=ATTACKS, **LITTLE)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The real cells by the local executor, in shards of three samples."""
    store = Store(tmp_path_factory.mktemp("calm"))
    machine = RunOptions(jobs=1, device="cpu", shard=3)
    assert run_plan(make_real_plan(resolve(SUITE)), store, machine, Reporter()).exit_code == EXIT_DONE
    return store


def test_real_cells_survive_the_loss_of_a_node_sample_by_sample(cluster, calm, tmp_path):
    plan, far, gone = make_real_plan(resolve(SUITE)), Store(tmp_path / "far"), list[int]()

    def kill_a_node():
        shards = list(far.path.glob("checkpoints/*/shard-*.json"))
        if shards and not gone:
            gone.append(len(shards))
            cluster.remove_node(cluster.workers[0], allow_graceful=False)

    machine = RunOptions(executor="ray", device="cpu", shard=3)
    report = run_plan(plan, far, machine, Watching(kill_a_node))
    assert gone and report.exit_code == EXIT_DONE and len(report.computed) == len(plan.cells) == 4
    assert essence(far) == essence(calm)


def test_a_driver_that_is_killed_goes_on_where_it_was(cluster, calm, tmp_path):
    far, suite = Store(tmp_path / "far"), tmp_path / "real.json"
    suite.write_text(json.dumps(describe(resolve(SUITE))))
    command = [
        sys.executable, "-m", "apd_bench", "run", str(suite), "--device", "cpu", "--shard", "3", "--executor", "ray",
        "--address", cluster.address, "--results", str(far.path), "--boards", str(tmp_path / "boards"), "-q",
    ]  # fmt: skip
    with subprocess.Popen(command) as driver:
        while not finished(far) and driver.poll() is None:
            time.sleep(0.05)
        assert driver.poll() is None
        driver.kill()
    before, fits = finished(far), {path.name: path.stat().st_ino for path in far.fits.iterdir()}
    shards = {path: path.read_bytes() for path in far.path.glob("checkpoints/*/shard-*.json")}
    assert 0 < len(before) < 4
    subprocess.run(command, check=True)
    assert essence(far) == essence(calm)
    after = finished(far)
    assert {cell: after[cell] for cell in before} == before and len(after) == 4  # byte for byte: not measured again
    assert {name: (far.fits / name).stat().st_ino for name in fits} == fits
    assert all(path.read_bytes() == content for path, content in shards.items() if path.exists())


def test_no_cluster_at_an_address_is_one_sentence(tmp_path):
    machine = RunOptions(executor="ray", address="127.0.0.1:1", device="cpu")
    with pytest.raises(MissingPrerequisite, match="no Ray cluster at"):
        run_plan(make_plan(), Store(tmp_path / "far"), machine, Reporter(), workbench=FAKE)


@pytest.mark.parametrize("jobs", [None, 3])
def test_a_cluster_with_gpus_gives_each_task_one_whatever_the_driver_has(cluster, tmp_path, jobs):
    cluster.add_node(num_cpus=4, num_gpus=2)  # as Ray counts them; the fake workbench computes nothing on them
    cluster.wait_for_nodes()
    far = Store(tmp_path / "far")
    machine = RunOptions(executor="ray", jobs=jobs)
    assert run_plan(make_plan(), far, machine, Reporter(), workbench=FAKE).exit_code == EXIT_DONE
    seen = {(record.environment["device"], record.environment["visible"]) for record in far.records()}
    assert seen <= {("cuda", "0"), ("cuda", "1")} and seen


@pytest.mark.parametrize(("device", "jobs", "there", "expected"), [
    ("auto", None, 0, ("cpu", 0.0)),
    ("auto", None, 4, ("cuda", 1.0)),
    ("cpu", 8, 4, ("cpu", 0.0)),
    ("cuda", 2, 8, ("cuda", 0.5)),
    ("cuda", 3, 1, ("cuda", 0.3333)),
])  # fmt: skip
def test_tasks_take_a_gpu_or_a_share_of_one(device, jobs, there, expected):
    assert share_of_gpus(device, jobs, there) == expected


def test_gpus_that_cannot_be_had_are_one_sentence():
    with pytest.raises(MissingPrerequisite, match="has no GPU"):
        share_of_gpus("cuda", None, 0)
    with pytest.raises(UsageError, match="Ray chooses"):
        share_of_gpus("cuda:1", None, 4)
