"""Checkpoints of the real CLIP shapes, saved by open_clip with random weights, go the whole way from the shell."""

import numpy as np
import pytest
import torch
from PIL import Image

from apd_bench.backbones.configs import model_config
from apd_bench.backbones.load import instantiate
from apd_bench.core.files import file_digest
from apd_bench.records.store import Store


@pytest.fixture
def pictures(tmp_path):
    """Two classes, one training and one test image each."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("ants", "bees"):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            Image.fromarray(random.integers(0, 256, (32, 40, 3), np.uint8)).save(folder / "1.png")
    return tmp_path / "pictures"


def saved(architecture, path):
    config = model_config(architecture)
    assert config is not None
    torch.save({"epoch": 1, "state_dict": instantiate(config, seed=3).half().state_dict()}, path)
    return path


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "architecture", ["ViT-B-32-quickgelu", pytest.param("ViT-B-16-quickgelu", marks=pytest.mark.slow)]
)
def test_a_saved_checkpoint_is_fitted_and_attacked_by_two_methods(cli, architecture, pictures, tmp_path, request):
    if request.node.get_closest_marker("slow") and "slow" not in request.config.option.markexpr:
        pytest.skip("over a minute of one core: pytest -m slow")
    path = saved(architecture, tmp_path / "clip.pt")
    words = (
        "--suite", "blank", "--backbone", f"local:{path}@{architecture}", "--methods", "advtp,apd",
        "--datasets", f"folder:{pictures}", "--attacks", "pgd(steps=1)", "--eps", "1/255", "--shots", "1",
        "--set", "training.epochs=1", "--set", "training.batch_size=2", "--set", "inner_attack.steps=1",
        "--device", "cpu", "--jobs", "1",
    )  # fmt: skip
    fitted = cli("fit", *words)
    assert fitted.code == 0, fitted.err
    assert len(list(Store("results").fits.iterdir())) == 2
    ran = cli("run", *words)
    assert ran.code == 0, ran.err
    records = list(Store("results").records())
    assert {record.cell.fit.method.name for record in records} == {"advtp", "apd"}
    for record in records:
        assert record.done and record.metrics["n"] == 2
        assert record.cell.fit.backbone.digest == file_digest(path)
        assert record.metrics["robust_accuracy"] <= record.metrics["clean_accuracy"]
        assert record.timing["backwards"] > 0


def test_a_local_name_of_a_record_can_be_typed_again(cli, pictures, tmp_path):
    """Records hold no path: the file is known by its digest, to show, submit, examples and verify-submission."""
    path = saved("ViT-S-32", tmp_path / "clip.pt")
    quick = ("--suite", "blank", "--methods", "zero_shot", "--attacks", "fgsm", "--eps", "1/255")
    where = ("--datasets", f"folder:{pictures}", "--device", "cpu", "--jobs", "1")
    assert cli("run", *quick, *where, "--backbone", f"local:{path}@ViT-S-32").code == 0
    (record,) = Store("results").records()
    name = record.cell.fit.backbone.name
    assert name == f"local:clip.pt@ViT-S-32#{file_digest(path)[: len(name.rpartition('#')[2])]}"
    shown = cli("show", record.id, "--as-command")
    assert f"--backbone '{name}'" in shown.out, shown.err
    again = cli("plan", *quick, *where, "--backbone", name)
    assert again.code == 0 and "1 need nothing" in again.err, again.err
    assert cli("submit", "--out", "mine.tar.gz").code == 0
    assert cli("examples", "--backbones", name, "--count", "1").code == 0
    verified = cli("verify-submission", "mine.tar.gz", "--jobs", "1", "--device", "cpu")
    assert verified.code == 0 and "all 2 samples agree" in verified.out, verified.err
