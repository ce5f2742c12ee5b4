"""The two stages that a worker carries out, fit and evaluate: this is where all the rooms are joined."""

import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from apd_bench.backbones.adapter import Backbone
from apd_bench.core.specs import ATTACK_SEED, BackboneSpec, Cell, DatasetSpec, DefenceSpec, Fit
from apd_bench.core.targets import resolve
from apd_bench.data.protocols import few_shot, held_out, limit_split, select_classes
from apd_bench.data.splits import ImageSplit, LoadedDataset, load_dataset
from apd_bench.defences.base import Defence
from apd_bench.defences.parse import make_defence
from apd_bench.evaluation.cell import evaluate_samples
from apd_bench.prompts.classifier import Classifier, matmul_precision
from apd_bench.records.measured import Effective, Environment, FitFacts, Measured
from apd_bench.runner.batches import (
    BatchSize,
    CudaMemory,
    default_batch_size,
    free_memory,
    largest_batch,
    out_of_memory,
)
from apd_bench.runner.shards import shard_rows
from apd_bench.runner.tasks import FitDone, Progress, Settings, Task, Watch
from apd_bench.training.fit import fit as train
from apd_bench.training.known import known
from apd_bench.training.prompt_states import PromptState, load_state, restore, save_state, zero_shot

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


@dataclass(frozen=True)
class Loaded:
    """What a cell is measured with: model, prompt state, the adversary's model if it is another, set, test samples.

    `model` is the classifier, or a defence of it.
    """

    classifier: Classifier
    model: Classifier | Defence
    state: PromptState
    source: Classifier | None
    data: LoadedDataset
    test: ImageSplit


class Stages:
    """A worker's workbench: runs fits and cells, and keeps the last backbones, sets and prompt states loaded."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        cudnn = torch.backends.cudnn
        self._before = (torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        cudnn.deterministic, cudnn.benchmark = True, False
        if settings.device.startswith("cuda"):
            place = torch.device(settings.device)
            if place.index is not None:
                torch.cuda.set_device(place)  # for events and for what libraries make without naming a device
            if settings.share < 1:
                torch.cuda.set_per_process_memory_fraction(settings.share)  # of the current device
        self._backbones: Recent[Backbone] = Recent(2)
        self._datasets: Recent[LoadedDataset] = Recent(4)
        self._classifiers: Recent[tuple[Classifier, PromptState]] = Recent(2)
        self._known: Recent[dict[str, Tensor]] = Recent(2)
        self._batch_sizes: dict[Hashable, BatchSize] = {}

    def run(self, task: Task, watch: Watch) -> FitDone | Measured:
        """The prompt state of a fit, or what was measured of a cell."""
        return self.fit(task, watch) if task.cell is None else self.cell(task, task.cell, watch)

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

        def on_epoch(at: Mapping[str, Any]) -> None:
            watch(Progress(done=at["epoch"], total=at["epochs"], loss=at["loss"]))

        with matmul_precision("fp32"), repeatable_attention(self.settings.device):
            state = train(task.fit, backbone, data, device=self.settings.device, on_progress=on_epoch)
        return packed(state)

    def cell(self, task: Task, cell: Cell, watch: Watch) -> Measured:
        """Measures one cell, or a shard of it, with half the batch where memory runs out."""
        began = time.perf_counter()
        watch(Progress())
        loaded = self.load(task, cell)
        load_seconds = time.perf_counter() - began
        with matmul_precision(cell.precision):
            chosen = self.batch_size(loaded.classifier)
        size, halved, measured = chosen.size, 0, None
        while measured is None:
            try:
                measured = self._measure(task, cell, loaded, size, watch)
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not out_of_memory(error):
                    raise
            if measured is None:  # outside of `except`, which would hold what the batch held
                size, halved = size // 2, halved + 1
                free_memory()
        effective: Effective = {**measured.effective, "batch_size": size, "data": dict(loaded.data.origin)}
        if chosen.facts:
            effective["batch_size_found"] = dict(chosen.facts)
        if halved:
            effective["out_of_memory"] = halved
        facts = {name: loaded.state.card[name] for name in FitFacts.__annotations__ if name in loaded.state.card}
        return replace(
            measured,
            effective=effective,
            timing={**measured.timing, "seconds": time.perf_counter() - began, "load_seconds": load_seconds},
            fit=cast("FitFacts", {**facts, "digest": loaded.state.digest}),
            environment=device_facts(self.settings.device, cell.precision),
        )

    def load(self, task: Task, cell: Cell) -> Loaded:
        """The models and the samples of a cell, or of the shard that is asked for."""
        backbone = self.backbone(cell.fit.backbone)
        data = self.test_set(cell, backbone.shapes.image_size)
        classifier, state = self.classifier(task, cell.fit, cell, backbone, data)
        test = limit_split(self.samples(cell, data), cell.limit)
        if task.shard is not None:
            test = test.subset(list(shard_rows(task.shard, len(test))))
        model = classifier if cell.defence is None else self.defence(task, cell, cell.defence, classifier, state)
        return Loaded(classifier, model, state, self.source(task, cell, backbone, data), data, test)

    def _measure(self, task: Task, cell: Cell, loaded: Loaded, batch_size: int, watch: Watch) -> Measured:
        now = Progress(total=len(loaded.test))

        def on_progress(done: int, broken: int, passes: int) -> None:
            now.done, now.broken, now.passes = done, broken, passes
            watch(replace(now))

        def on_phase(text: str) -> None:
            now.phase = text
            watch(replace(now))

        folder = Path(self.settings.checkpoints) / cell.id
        if task.shard is not None:
            folder /= f"{task.shard[0]}-of-{task.shard[1]}"
        return evaluate_samples(
            loaded.model,
            loaded.test,
            cell.attack,
            cell.threat,
            seed=ATTACK_SEED,
            precision=cell.precision,
            batch_size=batch_size,
            device=self.settings.device,
            checkpoint_dir=folder,
            on_progress=on_progress,
            on_phase=on_phase,
            source_classifier=loaded.source,
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
            memory = CudaMemory(classifier, size, self.settings.device, self.settings.share)
            self._batch_sizes[key] = largest_batch(memory, size)
        return self._batch_sizes[key]

    def backbone(self, spec: BackboneSpec) -> Backbone:
        """The loaded backbone of a spec."""
        load: Callable[..., Backbone] = resolve(spec.loader, FunctionType)
        return self._backbones.get((spec.name, spec.digest), lambda: load(spec, device=self.settings.device))

    def dataset(self, spec: DatasetSpec, image_size: int, resize: str) -> LoadedDataset:
        """The opened set of a spec."""
        return self._datasets.get(
            (spec.name, spec.version, spec.digest, image_size, resize),
            lambda: load_dataset(spec, image_size=image_size, resize=resize),
        )

    def test_set(self, cell: Cell, image_size: int) -> LoadedDataset:
        """The set that a cell is tested on: its classes, without the excluded samples."""
        return select_classes(self.dataset(cell.dataset, image_size, cell.test_resize), cell.classes)

    def samples(self, cell: Cell, data: LoadedDataset) -> ImageSplit:
        """The images of a cell's split; held out are those that the few-shot draw of its fit did not take."""
        if cell.split != "held_out":
            return data.split(cell.split)
        fit, whole = cell.fit, self.dataset(cell.dataset, data.test.image_size, cell.test_resize)
        learned = fit.method.trains and fit.dataset.name == cell.dataset.name
        taken = few_shot(whole.train, None, fit.shots, fit.seed)[0].ids if learned and whole.train is not None else ()
        return held_out(data, taken)

    def classifier(
        self, task: Task, fit: Fit, cell: Cell, backbone: Backbone, data: LoadedDataset
    ) -> tuple[Classifier, PromptState]:
        """The frozen model of a fit on the cell's classes, and the prompt state in it."""

        def make() -> tuple[Classifier, PromptState]:
            state = self.prompt_state(task, fit)
            learner = restore(state, backbone, data.classes, data.template)
            return Classifier.from_learner(backbone, learner, precision=cell.precision), state

        return self._classifiers.get((fit.id, cell.dataset.name, cell.classes, cell.precision), make)

    def defence(self, task: Task, cell: Cell, spec: DefenceSpec, classifier: Classifier, state: PromptState) -> Defence:
        """The classifier behind a cell's defence, which may have to know what the prompts were trained on."""
        fit = cell.fit
        size, folder = classifier.backbone.shapes.image_size, Path(self.settings.fits) / fit.id
        return make_defence(
            spec,
            classifier,
            lambda made: self._known.get(
                (spec.name, spec.version, spec.code, fit.id, state.digest),
                lambda: known(made, spec, fit, state, lambda: self.dataset(fit.dataset, size, fit.resize), folder),
            ),
        )

    def source(self, task: Task, cell: Cell, backbone: Backbone, data: LoadedDataset) -> Classifier | None:
        """The model that the adversary differentiates through where it is not the attacked one."""
        if cell.threat.knowledge == "hand_prompt":
            return zero_shot(backbone, data.classes, data.template, precision=cell.precision)
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


@contextmanager
def repeatable_attention(device: str) -> Iterator[None]:
    """On CUDA, attention by plain matrix products: the backward passes of the fused kernels add up in any order."""
    if not device.startswith("cuda"):
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def packed(state: PromptState) -> FitDone:
    """The files of a prompt state, ready to travel."""
    with tempfile.TemporaryDirectory(prefix="apd-bench-fit-") as folder:
        save_state(folder, state)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return FitDone(files=files, card=state.card)


def device_facts(device: str, precision: str) -> Environment:
    """The device of a measurement, and the settings of it that can change a number."""
    facts: Environment = {"device": device, "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        facts |= {
            "device_name": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "tf32": precision == "tf32",
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
        }
    return facts
