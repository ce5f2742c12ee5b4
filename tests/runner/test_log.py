"""A run's log holds every loss and every progress, and is read as scalars by TensorBoard and W&B."""

import json
import sys
from types import SimpleNamespace

import pytest

import apd_bench
from apd_bench.cli import main
from apd_bench.core.errors import EXIT_DONE, EXIT_USAGE, MissingPrerequisite
from apd_bench.records.store import Store
from apd_bench.runner import log_readers
from apd_bench.runner.log_readers import Scalar, log_events, scalars, to_tensorboard, to_wandb


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with one trained fit, logged as run.jsonl."""
    folder = tmp_path_factory.mktemp("logged")
    apd_bench.run(
        methods="apd", datasets="food", attacks="fgsm", limit=4, shots=1, settings=["training.epochs=3"],
        results=folder / "results", log=folder / "run.jsonl", device="cpu",
    )  # fmt: skip
    return folder


def test_the_log_holds_the_history_of_the_card_and_what_the_cells_gave(run):
    found = list(log_events(run / "run.jsonl"))
    assert [event["event"] for event in found[:2]] == ["open", "start"] and found[-1]["event"] == "finish"
    assert all(event["time"].endswith("+00:00") for event in found)
    store = Store(run / "results")
    record = next(record for record in store.records() if record.cell.fit.method.name == "apd")
    card = store.card(record.cell.fit.id)
    numbers = {(item.name, item.step): item.value for item in scalars(found) if " apd " in item.fit}
    for row in card["history"]:
        for name, value in row.items():
            assert name == "epoch" or numbers[f"train/{name}", row["epoch"] + 1] == value
    assert len([name for name, _ in numbers if name == "train/loss"]) == 3
    (robust,) = (value for (name, _), value in numbers.items() if name.endswith("fgsm/robust"))
    assert robust == record.metrics["robust_accuracy"]


def test_losses_come_while_a_fit_is_trained_and_each_stands_there_once():
    fit, rows = {"fit": "f"}, [{"epoch": 0, "loss": 3.0, "kl": 1.0}, {"epoch": 1, "loss": None, "lr": 0.1}]
    found = [
        {"event": "task_started", "kind": "fit", **fit},
        {"event": "epoch", "epoch": 1, "epochs": 2, "loss": 3.0, **fit},
        {"event": "history", "rows": rows, **fit},
    ]
    first = [Scalar("f", "train/loss", 1, 3.0), Scalar("f", "train/kl", 1, 1.0), Scalar("f", "train/lr", 2, 0.1)]
    assert list(scalars(found)) == first and list(scalars(found * 2)) == first * 2


def test_a_log_is_followed_until_the_run_ends(tmp_path, monkeypatch):
    path = tmp_path / "run.jsonl"
    path.write_text('{"event": "start"}\n{"event": "fin')
    assert [event["event"] for event in log_events(path)] == ["start"]

    def wait(seconds):
        with path.open("a") as stream:
            stream.write('ish"}\n')

    monkeypatch.setattr(log_readers.time, "sleep", wait)
    assert [event["event"] for event in log_events(path, follow=True)] == ["start", "finish"]


def test_tensorboard_gets_every_number(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(["log", str(run / "run.jsonl"), "--tensorboard", str(tmp_path / "tb")]) == EXIT_DONE
    read = []
    for folder in (tmp_path / "tb").iterdir():
        loaded = EventAccumulator(str(folder)).Reload()
        read += [(item.step, item.value) for tag in loaded.Tags()["scalars"] for item in loaded.Scalars(tag)]
    wanted = sorted((item.step, item.value) for item in scalars(log_events(run / "run.jsonl")))
    assert sorted(read) == [(step, pytest.approx(value, rel=1e-6)) for step, value in wanted]


def test_wandb_gets_one_run_a_fit(run, monkeypatch):
    made = []

    def init(**how):
        made.append(SimpleNamespace(how=how, rows=[], summary={}, ended=0))
        one = made[-1]
        one.define_metric, one.log = lambda *words, **more: None, one.rows.append
        one.finish = lambda: setattr(one, "ended", one.ended + 1)
        return one

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setattr(log_readers, "find_spec", lambda name: True)
    to_wandb(scalars(log_events(run / "run.jsonl")), "mine")
    trained = next(one for one in made if one.rows)
    assert trained.how["project"] == "mine" and {row["epoch"] for row in trained.rows} == {1, 2, 3}
    assert len(made) == 2 and all(one.ended == 1 for one in made)
    assert any(name.endswith("fgsm/robust") for name in trained.summary)


def test_the_last_of_a_number_is_that_of_its_last_epoch_whatever_came_last(monkeypatch, tmp_path, capsys):
    told = [Scalar("f", "train/loss", 3, 0.5), Scalar("f", "train/loss", 2, 0.7), Scalar("f", "train/loss", 3, 0.4)]
    monkeypatch.setattr("apd_bench.cli.log.log_events", lambda *_, **__: [])
    monkeypatch.setattr("apd_bench.cli.log.scalars", lambda _: iter(told))
    assert main(["log", str(tmp_path / "run.jsonl")]) == EXIT_DONE
    assert capsys.readouterr().out.splitlines()[-1].split()[-2:] == ["3", "0.4"]


def test_what_cannot_be_read_or_written_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "other.jsonl").write_text(json.dumps([1]) + "\n")
    for words, said in (
        (["log", str(tmp_path / "none.jsonl")], "Write one: apd-bench run --log"),
        (["log", str(tmp_path / "other.jsonl")], "line 1 of"),
        (["run", "--log", "/proc/none/run.jsonl", "--results", str(tmp_path / "r")], "Choose another file with --log"),
    ):
        assert main(words) == EXIT_USAGE
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert not (tmp_path / "r").exists()
    monkeypatch.setattr(log_readers, "find_spec", lambda name: None)
    for write in (to_tensorboard, to_wandb):
        with pytest.raises(MissingPrerequisite, match=r"pip install 'apd-bench\["):
            write([], tmp_path)
