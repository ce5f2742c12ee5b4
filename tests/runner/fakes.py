"""A workbench without models: results are functions of the cell's id, and recipes say how it misbehaves."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import numpy as np

from apd_bench.core.errors import MissingPrerequisite
from apd_bench.core.specs import AttackSpec, BackboneSpec, Cell, DatasetSpec, Fit, MethodRecipe, Suite, ThreatModel
from apd_bench.records.measured import Measured
from apd_bench.records.outcomes import Outcomes
from apd_bench.runner.plan import Plan
from apd_bench.runner.shards import shard_rows
from apd_bench.runner.tasks import FitDone, Progress

SAMPLES = 12
BATCH = 4
REAL = Suite(name="s", backbones=("tiny-clean",), eps=(2 / 255,), seeds=(1,))  # the start of a grid without fakes


class FakeBench:
    """Follows `learner_options["behave"]` of the fit, or `options["behave"]` of the attack."""

    lost = False  # its GPU

    def __init__(self, settings):
        self.settings = settings
        self.pause = float(os.environ.get("FAKE_SECONDS", "0"))

    def close(self):
        """Nothing was changed."""

    def run(self, task, watch):
        _log(f"start-{task.kind} {task.id}")
        behave = task.fit.method.learner_options if task.cell is None else task.cell.attack.options
        watch(Progress(total=SAMPLES))
        self.lost |= _loses_its_gpu(str(behave.get("behave", "")), task)
        if self.lost:
            raise RuntimeError("CUDA error: device-side assert triggered")
        _misbehave(str(behave.get("behave", "")), task)
        result = self.fit(task) if task.cell is None else self.cell(task, task.cell, watch)
        _log(f"end-{task.kind} {task.id}")
        return result

    def fit(self, task):
        time.sleep(self.pause)
        learned = (task.fit.id + os.environ.get("FAKE_PROMPTS", "")).encode()
        card = {"id": task.fit.id, "seconds": 0.5, "forwards": 10, "backwards": 5, "digest": _digest(learned)}
        return FitDone(files={"card.json": json.dumps(card).encode(), "state": learned}, card=card)

    def cell(self, task, cell, watch):
        state = Path(self.settings.fits) / cell.fit.id / "state"
        learned = state.read_bytes() if task.files is None else task.files[cell.fit.id]["state"]
        checkpoint = Path(self.settings.checkpoints) / cell.id / f"batches-{task.shard}"
        rows = range(SAMPLES) if task.shard is None else shard_rows(task.shard, SAMPLES)
        draws = np.frombuffer(hashlib.sha256(learned + cell.id.encode()).digest(), np.uint8)[list(rows)]
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        while done < len(rows):
            watch(Progress(done=done, total=len(rows), broken=int((draws[:done] < 99).sum()), passes=done * 10))
            time.sleep(self.pause)
            done += BATCH
            _log(f"batch {task.id} {done}")
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            temporary = checkpoint.with_name(f".batches.{os.getpid()}")
            temporary.write_text(str(done))
            temporary.replace(checkpoint)
        broken = draws < 128
        outcomes = Outcomes(
            sample_id=[f"{cell.dataset.name}/{row}" for row in rows], label=np.zeros(len(rows)),
            clean_prediction=draws < 40, adversarial_prediction=broken, broken=broken,
        )  # fmt: skip
        timing = {"seconds": 1.0, "attack_seconds": 0.8, "model_seconds": 0.6, "forwards": 100, "backwards": 50}
        environment = {"device": self.settings.device, "visible": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
        made = {"metrics": outcomes.metrics(), "outcomes": outcomes, "fit": {"digest": _digest(learned)}}
        return Measured(**made, timing=timing, environment=environment)


def _digest(learned):
    return hashlib.sha256(learned).hexdigest()


def _marker(task):
    return Path(os.environ.get("FAKE_LOG", "/nonexistent")).with_name(f"died-{task.id}")


def _loses_its_gpu(behave, task):
    """`sticky` (always) and `sticky-once`."""
    lost = behave == "sticky" or (behave == "sticky-once" and not _marker(task).exists())
    if lost:
        _marker(task).touch()
    return lost


def _misbehave(behave, task):
    """`raise`, `die` (always) and `die-once` (the first time)."""
    marker = _marker(task)
    if behave == "raise":
        raise ZeroDivisionError("the attack divided by zero")
    if behave == "die" or (behave == "die-once" and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _log(line):
    path = os.environ.get("FAKE_LOG")
    if path:
        with Path(path).open("a") as stream:
            stream.write(line + "\n")


class BrokenBench(FakeBench):
    """One that cannot even be made."""

    def __init__(self, settings):
        raise MissingPrerequisite("No workbench here.", hint="Buy one.")


def make_plan(methods=("one", "two"), datasets=("a", "b"), attacks=("pgd", "cw"), seeds=(1,)):
    """Cells of fake specs; "name:behave" makes a method (its fit) or an attack (its cells) misbehave."""
    backbone = BackboneSpec(name="fake", architecture="none", weights="none", activation="none", image_size=8)
    cells = []
    for method_text in methods:
        method, _, fit_behave = method_text.partition(":")
        recipe = MethodRecipe(
            name=method, learner="none", objective="none", learner_options={"behave": fit_behave} if fit_behave else {}
        )
        for name in datasets:
            dataset = DatasetSpec(name=name, loader="none", template="a {}.", counts={"test": SAMPLES})
            for seed in seeds:
                fit = Fit(backbone=backbone, method=recipe, dataset=dataset, seed=seed)
                for attack_text in attacks:
                    attack, _, behave = attack_text.partition(":")
                    spec = AttackSpec(name=attack, options={"behave": behave} if behave else {})
                    cells.append(Cell(fit=fit, dataset=dataset, threat=ThreatModel(eps=4 / 255), attack=spec))
    return Plan(Suite(name="fake", eps=(4 / 255,)), tuple(cells))
