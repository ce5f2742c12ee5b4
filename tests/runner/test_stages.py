"""What a worker really does, on the embedded tiny CLIP: fits, cells, shards, other people's examples, bad files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import REAL

from apd_bench.core.package_data import package_path
from apd_bench.prompts.classifier import matmul_precision
from apd_bench.records.measured import Measured
from apd_bench.runner import stages
from apd_bench.runner.batches import CudaMemory, out_of_memory
from apd_bench.runner.executor import guarded
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import resolve
from apd_bench.runner.stages import Recent, Stages, device_facts, repeatable_attention
from apd_bench.runner.tasks import Failure, FitDone, Interrupted, Settings, Stopped, Task
from apd_bench.training.toy import toy_backbone

ONE = {"methods": ("advtp",), "datasets": ("fashion",), "attacks": ("pgd(steps=3)",), "eps": (1 / 255,)}
SUITE = REAL.with_options(**ONE, shots=(1,), limit=9, recipe={"training": {"epochs": 1}})


def cell_of(**changes):
    return plan(resolve(SUITE.with_options(**changes))).cells[0]


def quiet(progress):
    """Watches nothing."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A workbench with the fit of the suite's cell and of its zero-shot relative in its store."""
    folder = tmp_path_factory.mktemp("store")
    stages = Stages(Settings(fits=str(folder / "fits"), checkpoints=str(folder / "checkpoints"), threads=1))
    for cell in (cell_of(), cell_of(methods=("zero_shot",))):
        done = stages.run(Task(fit=cell.fit), quiet)
        assert isinstance(done, FitDone)
        target = folder / "fits" / cell.fit.id
        target.mkdir(parents=True)
        for name, content in done.files.items():
            (target / name).write_bytes(content)
    yield stages
    stages.close()


def run(bench, cell, **more):
    result = bench.run(Task(fit=cell.fit, cell=cell, **more), quiet)
    assert isinstance(result, Measured), result
    return result


def test_a_cell_says_what_it_measured_and_on_what(bench):
    seen = []
    cell = cell_of()
    done = bench.run(Task(fit=cell.fit, cell=cell), seen.append)
    assert isinstance(done, Measured)
    assert done.metrics["n"] == len(done.outcomes) == 9
    assert done.environment == {"device": "cpu", "threads": 1}
    assert len(str(done.fit["digest"])) == 64 and done.fit["num_parameters"] > 0
    assert done.timing["seconds"] >= done.timing["attack_seconds"] >= done.timing["model_seconds"] > 0
    assert seen[-1].done == seen[-1].total == 9 and seen[-1].passes > 0


def test_shards_merge_into_the_whole_cell(bench):
    cell = cell_of()
    whole = run(bench, cell)
    merged = Measured.merge([run(bench, cell, shard=(place, 3)) for place in range(3)])
    assert merged.metrics == whole.metrics
    for (name, one), (_, two) in zip(whole.outcomes.columns(), merged.outcomes.columns(), strict=True):
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, two, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(one, two, err_msg=name)


def test_prompt_states_may_travel_with_the_task(bench, tmp_path):
    cell = cell_of()
    folder = Path(bench.settings.fits) / cell.fit.id
    files = {cell.fit.id: {path.name: path.read_bytes() for path in folder.iterdir()}}
    far = Stages(replace(bench.settings, fits=str(tmp_path / "none"), checkpoints=str(tmp_path / "checkpoints")))
    there = run(far, cell, files=files)
    far.close()
    assert there.outcomes.to_bytes() == run(bench, cell).outcomes.to_bytes()


def test_base_and_new_classes_use_the_prompts_of_base(bench):
    cells = plan(resolve(SUITE.with_options(task="base_to_new", methods=("zero_shot",)))).cells
    done = [run(bench, cell) for cell in cells]
    assert [cell.classes for cell in cells] == ["base", "new"]
    assert set(done[0].outcomes.sample_id).isdisjoint(done[1].outcomes.sample_id)


def test_a_request_to_stop_is_obeyed_at_the_next_report(bench):
    def stop(progress):
        if progress.passes:
            raise Interrupted

    cell = cell_of()
    assert guarded(bench, Task(fit=cell.fit, cell=cell), stop) == Stopped()


def test_a_corrupt_weight_file_is_one_sentence_that_says_what_mends_it(bench, tmp_path, monkeypatch):
    spec = cell_of().fit.backbone
    broken = tmp_path / "weights.safetensors"
    content = bytearray(package_path("embedded", "models", "tiny-clean.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(content)
    local = replace(spec, name="broken", options={**spec.options, "path": str(broken)}, weights="local")
    cell = cell_of()
    result = guarded(bench, Task(fit=replace(cell.fit, backbone=local)), quiet)
    assert isinstance(result, Failure) and result.prerequisite
    assert "weights.safetensors" in result.message and result.hint


def test_a_damaged_prompt_state_is_refused(bench, tmp_path):
    cell = cell_of()
    files = {path.name: path.read_bytes() for path in (Path(bench.settings.fits) / cell.fit.id).iterdir()}
    files["state.safetensors"] = files["state.safetensors"][:-4] + b"\0\0\0\x7f"
    fresh = Stages(bench.settings)
    result = guarded(fresh, Task(fit=cell.fit, cell=cell, files={cell.fit.id: files}), quiet)
    fresh.close()
    assert isinstance(result, Failure) and result.prerequisite and "digest" in result.message


def test_the_process_gets_its_settings_back(bench):
    before = (torch.get_num_threads(), torch.backends.cudnn.deterministic)
    stages = Stages(replace(bench.settings, threads=before[0] + 1))
    assert torch.get_num_threads() == before[0] + 1 and torch.backends.cudnn.deterministic
    stages.close()
    assert (torch.get_num_threads(), torch.backends.cudnn.deterministic) == before


def test_only_the_last_things_stay_loaded():
    made = []

    def make(key):
        made.append(key)
        return key

    recent = Recent(2)
    for key in "abacab":
        recent.get(key, lambda key=key: make(key))
    assert made == ["a", "b", "c", "b"]


@pytest.mark.parametrize(("error", "memory"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), True),
    (MemoryError(), True),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"), True),
    (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported at some other API call"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
    (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB)"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), False),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    (RuntimeError("shapes do not match"), False),
])  # fmt: skip
def test_memory_errors_are_told_from_others(error, memory):
    assert out_of_memory(error) is memory


def test_the_device_of_a_worker_is_the_current_one_and_its_memory_a_share(monkeypatch):
    said = []
    monkeypatch.setattr(torch.cuda, "set_device", said.append)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", said.append)
    place = torch.device("cuda:1")
    Stages(Settings(fits="", checkpoints="", device="cuda:1", share=0.5)).close()
    assert said == [place, 0.5]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    assert [CudaMemory(torch.sigmoid, 8, "cuda:1", share).free() for share in (1.0, 0.5)] == [80, 30]


def test_fits_are_trained_in_float32_whatever_the_process_allows_and_cells_say_what_they_did(bench, monkeypatch):
    seen = []

    def train(*words, **more):
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cuda.flash_sdp_enabled()))

    monkeypatch.setattr(stages, "train", train)
    monkeypatch.setattr(stages, "packed", lambda state: FitDone(files={}, card={}))
    monkeypatch.setattr(bench, "backbone", lambda spec: toy_backbone())
    with matmul_precision("tf32"):
        bench.fit(Task(fit=cell_of().fit), quiet)
        with repeatable_attention("cuda"):
            bench.fit(Task(fit=cell_of().fit), quiet)
    assert seen == [("highest", True), ("highest", False)]
    monkeypatch.setattr(torch.cuda, "get_device_name", str)
    assert [device_facts("cuda", precision)["tf32"] for precision in ("tf32", "fp32")] == [True, False]
