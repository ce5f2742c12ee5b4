"""The batch size that is found: what fits by the measured memory, the constants elsewhere, a number as it is."""

from dataclasses import dataclass, field

import pytest
import torch

from apd_bench.prompts.classifier import Classifier
from apd_bench.runner import stages
from apd_bench.runner.batches import HELD, LIMIT, SHARE, default_batch_size, largest_batch
from apd_bench.runner.stages import Stages
from apd_bench.runner.tasks import Settings
from apd_bench.training.toy import toy_backbone

SIDE = 40
PIXELS = HELD * 3 * SIDE**2 * 4
MIB = 2**20


@dataclass
class FakeMemory:
    """A device with `space` bytes, of which a pass of n images takes fixed + n * each."""

    space: int
    each: int
    fixed: int = 0
    asked: list[int] = field(default_factory=list)

    def free(self):
        return self.space

    def peak(self, batch):
        self.asked.append(batch)
        if self.fixed + batch * self.each > self.space:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.fixed + batch * self.each


@pytest.mark.parametrize("each", [1, 10 * MIB, 37 * MIB, 300 * MIB])
@pytest.mark.parametrize("fixed", [0, 500 * MIB])
def test_the_largest_power_of_two_that_fits_is_found(each, fixed):
    memory = FakeMemory(8000 * MIB, each, fixed)
    found = largest_batch(memory, SIDE)
    assert found.size & (found.size - 1) == 0 and 1 <= found.size <= LIMIT
    assert fixed + found.size * (each + PIXELS) <= SHARE * memory.space
    assert found.size == LIMIT or fixed + 2 * found.size * (each + PIXELS) > SHARE * memory.space
    assert memory.asked == [4, 8]
    assert found.facts["from"] == "memory" and found.facts["bytes_free"] == memory.space
    assert largest_batch(FakeMemory(8000 * MIB, each, fixed), SIDE) == found


def test_smaller_batches_are_tried_where_memory_lacks_and_nowhere_else():
    memory = FakeMemory(1000 * MIB, 200 * MIB)
    assert largest_batch(memory, SIDE).size == 2
    assert memory.asked == [4, 8, 1, 2]
    assert largest_batch(FakeMemory(100 * MIB, 200 * MIB), SIDE).size == 1

    class Broken(FakeMemory):
        def peak(self, batch):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_batch(Broken(1, 1), SIDE)


def classifier(precision="fp32"):
    backbone = toy_backbone()
    return Classifier(backbone, torch.eye(4, backbone.shapes.embed_dim), precision=precision)


def bench(tmp_path, device, batch_size=None):
    made = Stages(Settings(fits=str(tmp_path), checkpoints=str(tmp_path), device=device, batch_size=batch_size))
    made.close()
    return made


def test_a_worker_measures_once_for_each_kind_of_model(tmp_path, monkeypatch):
    made = []

    def memory(model, image_size, device, share):
        made.append(FakeMemory(8000 * MIB, 30 * MIB))
        return made[-1]

    monkeypatch.setattr(stages, "CudaMemory", memory)
    worker = bench(tmp_path, "cuda")
    first = worker.batch_size(classifier())
    assert first.size == 128
    assert worker.batch_size(classifier()) is first and len(made) == 1
    worker.batch_size(classifier("bf16"))
    assert len(made) == 2


def test_a_number_and_a_cpu_need_no_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "CudaMemory", None)
    assert bench(tmp_path, "cuda", batch_size=7).batch_size(classifier()).size == 7
    found = bench(tmp_path, "cpu").batch_size(classifier())
    assert default_batch_size(40) > default_batch_size(224)
    assert (found.size, found.facts) == (default_batch_size(toy_backbone().shapes.image_size), {})
