"""The parts measure what they say: the same work on both sides, nobody leaves the loop, no torch at start-up."""

import pytest
import torch

from apd_bench.bench.images import image_row
from apd_bench.bench.loop import loop_row
from apd_bench.bench.startup import imported
from apd_bench.bench.stores import fill, grid, read_files, store_rows, walk
from apd_bench.bench.thousand import memory_rows
from apd_bench.bench.train import class_names
from apd_bench.methods.recipes import load_recipe
from apd_bench.methods.toy import toy_backbone
from apd_bench.runner.report import choose
from apd_bench.states import build_learner
from apd_bench.store import Store


@pytest.fixture(scope="module")
def backbone():
    return toy_backbone()


def test_nobody_leaves_the_measured_loop(backbone):
    row = loop_row(backbone, batch=4, steps=3, repeats=2)
    assert row.facts == {"left the active set": 0, "passes per image": 7}
    assert len(row.ours) == len(row.limit) == 2
    assert row.excess is not None


def test_the_walk_and_the_index_agree_on_what_is_to_do(tmp_path):
    cells = grid(60)
    assert len({cell.id for cell in cells.cells}) == 60
    done = type(cells)(cells.suite, cells.cells[:45])
    fill(Store(tmp_path), done)
    left = choose(cells.cells, Store(tmp_path).statuses(), "unfinished")
    assert [cell.id for cell in left] == walk(tmp_path, cells)
    assert len(left) == 15
    assert 0 < read_files(tmp_path) < 2 * 45


def test_store_rows_tell_the_growth():
    rows = store_rows([20, 40], repeats=1)
    assert len(rows) == 6
    assert ["growth" in row.facts for row in rows] == [False] * 3 + [True] * 3


def test_both_ways_of_reading_images_give_the_same_pixels():
    row = image_row(6, image_size=32, batch_size=4, repeats=1)
    assert row.facts["same pixels"] == "yes"
    assert row.ratio is not None


@pytest.mark.parametrize("words", [("-m", "apd_bench", "--help"), ("-c", "import apd_bench")])
def test_help_and_import_need_no_torch(words):
    assert imported(words) == []


def test_the_probe_sees_torch():
    assert "torch" in imported(("-c", "import torch"))


def test_memory_rows_measure_both_sides(backbone):
    rows = memory_rows(backbone, classes=300, batch=2, fab_batch=2, fab=False)
    assert [row.unit for row in rows] == ["MiB", "MiB"]
    assert all(len(row.usual) == len(row.ours) for row in rows)


def saved_bytes(work):
    """Bytes that autograd keeps for the backward pass, each storage once."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    return sum(kept.values()), result


def test_the_text_tower_keeps_bounded_memory_whatever_the_number_of_classes(backbone):
    kept, features = {}, {}
    for count in (50, 400):
        learner = build_learner(load_recipe("advvlp"), backbone, class_names(count), "a photo of a {}.")
        for name, options in (("whole", {"chunk": count, "checkpoint": False}), ("chunks", {"chunk": 25})):
            kept[count, name], features[count, name] = saved_bytes(
                lambda learner=learner, options=options: backbone.encode_text(
                    learner.texts(), learner().text, **options
                )
            )
    assert torch.allclose(features[400, "whole"], features[400, "chunks"], atol=1e-5)
    assert kept[400, "whole"] > 6 * kept[50, "whole"]
    assert kept[400, "chunks"] < kept[400, "whole"] / 20
