"""The two stages that a worker carries out, fit and evaluate: this is where all the rooms are joined."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch

from apd_bench.backbones.adapter import Backbone
from apd_bench.core.specs import BackboneSpec, Cell, DatasetSpec, Fit
from apd_bench.core.targets import resolve
from apd_bench.data.load import load_dataset
from apd_bench.data.protocols import limit_split, select_classes
from apd_bench.data.splits import LoadedDataset
from apd_bench.evaluation.cell import evaluate_cell
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.classifier import Classifier, matmul_precision
from apd_bench.runner.batches import (
    BatchSize,
    CudaMemory,
    default_batch_size,
    free_memory,
    largest_batch,
    out_of_memory,
)
from apd_bench.runner.shards import shard_rows
from apd_bench.runner.tasks import (
    CellDone,
    Failure,
    FitDone,
    Interrupted,
    Progress,
    Result,
    Settings,
    Stopped,
    Task,
    Watch,
)
from apd_bench.training.fit import fit as train
from apd_bench.training.prompt_states import PromptState, build_learner, load_state, restore, save_state

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The last `size` things that were made, by key."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: dict[Hashable, Value] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The thing of this key, made now if it is not among the last ones."""
        if key in self._items:
            self._items[key] = self._items.pop(key)
        else:
            while len(self._items) >= self._size:
                del self._items[next(iter(self._items))]
            self._items[key] = make()
        return self._items[key]


class Stages:
    """A worker's workbench: runs fits and cells, and keeps the last backbones, sets and prompt states loaded."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        cudnn = torch.backends.cudnn
        self._before = (torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        cudnn.deterministic, cudnn.benchmark = True, False
        self._backbones: Recent[Backbone] = Recent(2)
        self._datasets: Recent[LoadedDataset] = Recent(4)
        self._classifiers: Recent[tuple[Classifier, PromptState]] = Recent(2)
        self._batch_sizes: dict[Hashable, BatchSize] = {}

    def run(self, task: Task, watch: Watch) -> Result:
        """The result of a task; what goes wrong comes back as a Failure."""
        try:
            if task.cell is not None:
                return self.cell(task, task.cell, watch)
            return self.fit(task, watch)
        except Interrupted:
            return Stopped()
        except Exception as error:
            return Failure.of(error)

    def close(self) -> None:
        """Gives the process its thread count and cuDNN switches back."""
        threads, deterministic, benchmark = self._before
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark

    def fit(self, task: Task, watch: Watch) -> FitDone:
        """Trains (or assembles) the prompt state of the task's fit."""
        watch(Progress())
        backbone = self.backbone(task.fit.backbone)
        data = self.dataset(task.fit.dataset, backbone.shapes.image_size, task.fit.resize)
        return packed(train(task.fit, backbone, data, device=self.settings.device, on_progress=epochs_to(watch)))

    def cell(self, task: Task, cell: Cell, watch: Watch) -> CellDone:
        """Measures one cell, or a shard of it, with half the batch where memory runs out."""
        began = time.perf_counter()
        watch(Progress())
        backbone = self.backbone(cell.fit.backbone)
        data = self.test_set(cell, backbone.shapes.image_size)
        classifier, state = self.classifier(task, cell.fit, cell, backbone, data)
        test = limit_split(data.split(cell.split), cell.limit)
        folder = Path(self.settings.checkpoints) / cell.id
        if task.shard is not None:
            test = test.subset(list(shard_rows(task.shard, len(test))))
            folder /= f"{task.shard[0]}-of-{task.shard[1]}"
        source = self.source(task, cell, backbone, data)
        loaded = time.perf_counter() - began
        with matmul_precision(cell.precision):
            chosen = self.batch_size(classifier)
        batch_size, halved = chosen.size, 0

        def on_progress(done: int, broken: int, passes: int) -> None:
            watch(Progress(done=done, total=len(test), broken=broken, passes=passes))

        while True:
            try:
                result = evaluate_cell(
                    cell,
                    classifier,
                    test,
                    batch_size=batch_size,
                    device=self.settings.device,
                    checkpoint_dir=folder,
                    on_progress=on_progress,
                    source_classifier=source,
                )
                break
            except (RuntimeError, MemoryError) as error:
                if batch_size == 1 or not out_of_memory(error):
                    raise
                batch_size, halved = batch_size // 2, halved + 1
            free_memory()
        effective = {**result.effective, "batch_size": batch_size, "data": dict(data.origin)}
        if chosen.facts:
            effective["batch_size_found"] = dict(chosen.facts)
        if halved:
            effective["out_of_memory"] = halved
        return CellDone(
            metrics=result.metrics,
            outcomes=result.outcomes,
            diagnostics=result.diagnostics,
            suspect=tuple(result.suspect),
            effective=effective,
            timing={**result.timing, "seconds": time.perf_counter() - began, "load_seconds": loaded},
            fit=fit_facts(state),
            environment=device_facts(self.settings.device),
        )

    def batch_size(self, classifier: Classifier) -> BatchSize:
        """Images per batch for a classifier; measured once for each backbone, length of prompts and precision."""
        size = classifier.backbone.shapes.image_size
        if self.settings.batch_size is not None:
            return BatchSize(self.settings.batch_size)
        if not self.settings.device.startswith("cuda"):
            return BatchSize(default_batch_size(size))
        tokens = classifier.visual_tokens
        spec = classifier.backbone.spec
        key = (spec.name, spec.digest, None if tokens is None else tuple(tokens.shape), classifier.precision)
        if key not in self._batch_sizes:
            self._batch_sizes[key] = largest_batch(CudaMemory(classifier, size, self.settings.device), size)
        return self._batch_sizes[key]

    def backbone(self, spec: BackboneSpec) -> Backbone:
        """The loaded backbone of a spec."""

        def make() -> Backbone:
            loaded: Backbone = resolve(spec.loader, FunctionType)(spec, device=self.settings.device)
            return loaded

        return self._backbones.get((spec.name, spec.digest), make)

    def dataset(self, spec: DatasetSpec, image_size: int, resize: str) -> LoadedDataset:
        """The opened set of a spec."""
        return self._datasets.get(
            (spec.name, spec.version, spec.digest, image_size, resize),
            lambda: load_dataset(spec, image_size=image_size, resize=resize),
        )

    def test_set(self, cell: Cell, image_size: int) -> LoadedDataset:
        """The set that a cell is tested on: its classes, without the excluded samples."""
        data = self.dataset(cell.dataset, image_size, cell.test_resize)
        return select_classes(data, cell.classes)

    def classifier(
        self, task: Task, fit: Fit, cell: Cell, backbone: Backbone, data: LoadedDataset
    ) -> tuple[Classifier, PromptState]:
        """The frozen model of a fit on the cell's classes, and the prompt state in it."""

        def make() -> tuple[Classifier, PromptState]:
            state = self.prompt_state(task, fit)
            learner = restore(state, backbone, data.classes, data.template)
            return Classifier.from_learner(backbone, learner, precision=cell.precision), state

        return self._classifiers.get((fit.id, cell.dataset.name, cell.classes, cell.precision), make)

    def source(self, task: Task, cell: Cell, backbone: Backbone, data: LoadedDataset) -> Classifier | None:
        """The model that the adversary differentiates through where it is not the attacked one."""
        if cell.threat.knowledge == "hand_prompt":
            learner = build_learner(load_recipe("zero_shot"), backbone, data.classes, data.template)
            return Classifier.from_learner(backbone, learner, precision=cell.precision)
        if cell.source is None:
            return None
        return self.classifier(task, cell.source, cell, backbone, data)[0]

    def prompt_state(self, task: Task, fit: Fit) -> PromptState:
        """The state of a fit, from the files that the task carries or from the store."""
        if task.files is None:
            return load_state(Path(self.settings.fits) / fit.id)
        with tempfile.TemporaryDirectory(prefix="apd-bench-fit-") as folder:
            for name, content in task.files[fit.id].items():
                (Path(folder) / name).write_bytes(content)
            return load_state(folder)


def epochs_to(watch: Watch) -> Callable[[Mapping[str, Any]], None]:
    """Tells `watch` about the epochs of a training."""

    def on_progress(state: Mapping[str, Any]) -> None:
        watch(Progress(done=float(state.get("epoch", 0)), total=float(state.get("epochs", 0))))

    return on_progress


def packed(state: PromptState) -> FitDone:
    """The files of a prompt state, ready to travel."""
    with tempfile.TemporaryDirectory(prefix="apd-bench-fit-") as folder:
        save_state(folder, state)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return FitDone(files=files, card=state.card)


def fit_facts(state: PromptState) -> dict[str, Any]:
    """What the record of a cell says about its prompt state."""
    keys = ("seconds", "forwards", "backwards", "num_parameters", "collapsed", "fewer_shots", "classes_digest")
    return {"digest": state.digest, **{key: state.card[key] for key in keys if key in state.card}}


def device_facts(device: str) -> dict[str, Any]:
    """The device of a measurement, and the settings of it that can change a number."""
    facts: dict[str, Any] = {"device": device, "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        facts |= {
            "device_name": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
        }
    return facts
