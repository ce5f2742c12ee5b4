"""Compiled passes: chosen where they pay by what was measured, said in the record, and never a reason to fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from apd_bench.classifier import Classifier
from apd_bench.errors import UsageError
from apd_bench.methods.toy import toy_backbone
from apd_bench.registry import ATTACKS
from apd_bench.runner import acceleration
from apd_bench.runner.acceleration import Accelerator, Trial, compile_model, ruled_out
from apd_bench.runner.machine import Machine
from apd_bench.runner.plan import Plan, plan
from apd_bench.runner.selection import Selection, resolve
from apd_bench.runner.session import make_executor
from apd_bench.runner.stages import Stages
from apd_bench.runner.tasks import CellDone, FitDone, Progress, Settings, Task
from apd_bench.specs import Suite
from apd_bench.store import Store

SUITE = Suite(
    name="s",
    backbones=("tiny-clean",),
    methods=("zero_shot",),
    datasets=("fashion",),
    attacks=("pgd(steps=3)",),
    eps=(2 / 255,),
    seeds=(1,),
    shots=(1,),
    limit=9,
)


@pytest.fixture
def classifier() -> Classifier:
    backbone = toy_backbone()
    return Classifier(backbone, torch.eye(4, backbone.shapes.embed_dim))


class Compiler:
    """Hands the model back, or fails; counts how often it was asked. Seconds come from a table, not from a clock."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.error = error

    def __call__(self, model: acceleration.Model, mode: str) -> acceleration.Model:
        self.asked.append(mode)
        if self.error is not None:
            raise self.error
        return lambda x: model(x)


def decide(monkeypatch: pytest.MonkeyPatch, trial: Trial, asked: str = "auto", device: str = "cpu") -> Accelerator:
    """An accelerator whose measurements are those of `trial`."""
    made = Accelerator(asked, device, compiled=Compiler())
    monkeypatch.setattr(made, "_seconds", lambda model, batch, repeats=3: trial.plain * batch)
    monkeypatch.setattr(made, "_try", lambda model, batch, plain: (trial, acceleration.Accelerated(
        model, model, limit=batch, classes=False)))  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("gradients", "used"),
    [(1000, "off"), (5000, "off"), (20000, "compile")],  # less than any compilation, less than this one, more
)
def test_it_is_used_where_it_saves_more_than_it_costs(
    gradients: int, used: str, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(plain=0.005, fast=0.003, compile_seconds=30.0)
    choice = decide(monkeypatch, trial).choose(classifier, 8, gradients)
    assert choice.facts["used"] == used and (choice.model is not None) == (used == "compile")
    assert choice.facts["gradients_expected"] == gradients
    assert ("reason" in choice.facts) == (used == "off")
    assert ("compile_seconds" in choice.facts) == (gradients > 1000)


def test_what_is_compiled_already_costs_nothing_more(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    made = decide(monkeypatch, Trial(plain=0.005, fast=0.003, compile_seconds=30.0))
    first, second = made.choose(classifier, 8, 20000), made.choose(classifier, 8, 50)
    assert second.model is first.model is not None
    slower = decide(monkeypatch, Trial(plain=0.005, fast=0.006, compile_seconds=30.0))
    assert slower.choose(classifier, 8, 1e9).model is None
    assert slower.choose(classifier, 8, 1e9).facts["reason"] == "saves less than it costs"


def test_who_asks_for_it_by_name_gets_it(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(plain=0.005, fast=0.006, compile_seconds=30.0)
    assert decide(monkeypatch, trial, "compile").choose(classifier, 8, 1).model is not None
    assert decide(monkeypatch, trial, "off").choose(classifier, 8, 1e9).facts == {}


def test_a_machine_that_cannot_compile_goes_on_without(classifier: Classifier) -> None:
    compiler = Compiler(RuntimeError("no working C++ compiler\nmore"))
    made = Accelerator("compile", "cpu", compiled=compiler)
    for _ in range(2):
        choice = made.choose(classifier, 4, 1e9)
        assert choice.model is None
        assert choice.facts["reason"] == "could not be compiled here: RuntimeError: no working C++ compiler"
    assert compiler.asked == ["compile"]


def test_a_trial_times_both_sides_and_the_compilation(classifier: Classifier) -> None:
    def slow(model: acceleration.Model, mode: str) -> acceleration.Model:
        time.sleep(0.05)
        return model

    choice = Accelerator("compile", "cpu", compiled=slow).choose(classifier, 4, 100)
    assert choice.model is not None
    assert choice.facts["compile_seconds"] > 0.05
    assert choice.facts["plain_seconds_per_image"] > 0 and choice.facts["accelerated_seconds_per_image"] > 0


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile without the compiler behind it, which takes seconds and a C++ compiler."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, mode, **rest: real(model, backend="eager", **rest))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def variant(model: acceleration.Model, name: str) -> acceleration.Model:
    """The model, which torch traces anew for every other name."""
    return lambda x: model(x) * len(name)


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("traced")
def test_at_torchs_limit_of_recompilations_nothing_goes_on_uncompiled(classifier: Classifier) -> None:
    side = classifier.backbone.shapes.image_size
    images = torch.full((3, 3, side, side), 0.5)
    with torch._dynamo.config.patch(recompile_limit=2), pytest.raises(Exception, match="fullgraph"):
        for length in range(1, 5):
            compile_model(variant(classifier, "v" * length), "compile")(images)


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("traced")
def test_a_worker_compiles_one_model_after_another_without_end(classifier: Classifier) -> None:
    lengths = iter(range(1, 100))

    def compiled(model: acceleration.Model, mode: str) -> acceleration.Model:
        return compile_model(variant(model, "v" * next(lengths)), mode)

    made = Accelerator("compile", "cpu", compiled=compiled)
    for _ in range(10):
        choice = made.choose(Classifier(classifier.backbone, classifier.text_features), 3, 100)
        assert choice.facts["used"] == "compile", choice.facts


def test_attacks_without_gradients_of_their_own_are_left_alone() -> None:
    assert ruled_out(ATTACKS.get("pgd"), "white_box", 0.01) == ""
    assert ruled_out(ATTACKS.get("worst"), "white_box", 0.01) == ""
    assert "no gradients" in ruled_out(ATTACKS.get("noise"), "white_box", 0.01)
    assert "no gradients" in ruled_out(ATTACKS.get("pgd"), "white_box", 0.0)
    assert "library" in ruled_out(ATTACKS.get("autoattack"), "white_box", 0.01)
    assert "another model" in ruled_out(ATTACKS.get("pgd"), "transfer", 0.01)


def small() -> Plan:
    return plan(resolve(SUITE, Selection()))


def test_cuda_graphs_are_refused_elsewhere_before_anything_runs(tmp_path: Path, classifier: Classifier) -> None:
    with pytest.raises(UsageError, match="CUDA graphs need a CUDA device, and this is 'cpu'"):
        make_executor(small(), Store(tmp_path), Machine(accelerate="graphs"), "cpu", 1)
    with pytest.raises(UsageError, match="CUDA graphs"):
        Accelerator("graphs", "cpu").choose(classifier, 4, 1)
    with pytest.raises(UsageError, match="off, auto, compile, graphs"):
        Machine(accelerate="fast")


def measure(tmp_path: Path, accelerate: str) -> CellDone:
    cell = small().cells[0]
    worker = Stages(
        Settings(fits=str(tmp_path / "fits"), checkpoints=str(tmp_path / "c"), threads=1, accelerate=accelerate)
    )

    def quiet(progress: Progress) -> None:
        """Watches nothing."""

    fitted = worker.run(Task(fit=cell.fit), quiet)
    assert isinstance(fitted, FitDone)
    done = worker.run(Task(fit=cell.fit, cell=cell, files={cell.fit.id: fitted.files}), quiet)
    worker.close()
    assert isinstance(done, CellDone), done
    return done


def test_a_cell_whose_passes_fail_in_use_is_measured_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def brittle(model: acceleration.Model, mode: str) -> acceleration.Model:
        def run(x: Tensor) -> Tensor:
            if (x != 0.5).any():  # fine on the images of the trial
                raise RuntimeError("kernel image is not available")
            return model(x)

        return run

    plain = measure(tmp_path, "off")
    monkeypatch.setattr(acceleration, "compile_model", brittle)
    done = measure(tmp_path, "compile")
    assert done.effective["accelerate"]["reason"].startswith("failed in use: RuntimeError: kernel image")
    assert done.outcomes.to_bytes() == plain.outcomes.to_bytes()
    assert "accelerate" not in plain.effective


def test_a_worker_without_acceleration_makes_the_same_record_as_ever(tmp_path: Path) -> None:
    assert set(measure(tmp_path, "off").effective) == {"batch_size", "data"}
    small_work = measure(tmp_path, "auto")
    assert small_work.effective["accelerate"]["reason"] == "too little work to compile for"


@pytest.mark.filterwarnings("default")
def test_a_cell_on_really_compiled_passes_is_judged_by_the_plain_model(tmp_path: Path) -> None:
    done, plain = measure(tmp_path, "compile"), measure(tmp_path, "off")
    facts = done.effective["accelerate"]
    assert facts["used"] in ("compile", "off")
    assert facts["used"] == "compile" or "could not be compiled" in facts["reason"]
    assert (done.outcomes.clean_prediction == plain.outcomes.clean_prediction).all()
    assert abs(int(done.outcomes.broken.sum()) - int(plain.outcomes.broken.sum())) <= 1
