"""`apd-bench audit`: a checkpoint as CoOp writes it, a backbone alone and a method, from the file to the page."""

import html
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apd_bench.backbones.load import load_backbone
from apd_bench.core.errors import EXIT_CELLS_FAILED, EXIT_DONE, EXIT_USAGE
from apd_bench.records.store import Store
from apd_bench.runner import stages

Cli = Callable[..., Any]
GRID = ("--backbone", "tiny-clean", "--datasets", "fashion,food", "--eps", "2/255", "--limit", "10")
QUICK = ("--sound", "worst.fast(steps=5)", "--jobs", "1", "--device", "cpu")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A context near 'a picture of a', as Dassl's `save_checkpoint` leaves it."""
    backbone = load_backbone("tiny-clean")
    context = backbone.embed_tokens(backbone.tokenize(["a picture of a"]))[0, 1:5].detach()
    path = tmp_path / "model.pth.tar-50"
    torch.save({"state_dict": {"ctx": context + 0.01, "token_prefix": torch.zeros(3, 1, 128)}, "epoch": 50}, path)
    return path


def audited(printed: str) -> tuple[dict[str, Any], str]:
    """The JSON and the page that the last line of the output names."""
    page, data = (Path(name.strip()) for name in printed.splitlines()[-1].partition(": ")[2].split(","))
    return json.loads(data.read_text()), page.read_text()


def test_a_checkpoint_is_attacked_as_in_the_paper_and_soundly(cli: Cli, checkpoint: Path) -> None:
    done = cli("audit", checkpoint.name, "--format", "coop", *GRID, *QUICK)
    assert done.code == EXIT_DONE
    data, page = audited(done.out)
    store = Store("results")
    outcomes = {(r.cell.dataset.name, r.cell.attack.name): store.outcomes(r.id) for r in store.records()}
    assert set(outcomes) == {
        (name, attack) for name in ("fashion", "food") for attack in ("pgd.literature", "worst.fast")
    }
    mean, *single = data["results"]
    for result in single:
        paper, sound = (outcomes[result["dataset"], attack] for attack in ("pgd.literature", "worst.fast"))
        fallen = sorted(paper.sample_id[~paper.broken & sound.broken].tolist())
        assert result["fallen"] == fallen and result["gap"]["value"] == len(fallen) / 10
        assert result["protocol"]["value"] == pytest.approx(1 - paper.broken.mean())
        assert result["worst"]["value"] == pytest.approx(1 - (paper.broken | sound.broken).mean())
        assert result["gap"]["low"] <= result["gap"]["value"] <= result["gap"]["high"] < 1
    assert mean["gap"]["value"] == pytest.approx(sum(one["gap"]["value"] for one in single) / 2)
    assert data["subject"]["learner"] == "text" and data["subject"]["parameters"] == "512"
    assert {cell["attack"] for cell in data["masking"]} == {"pgd.literature", "worst.fast(steps=5)"}
    assert all("zero_gradients" in cell["diagnostics"] for cell in data["masking"])
    assert any("CoOp itself is not attacked" in line for line in data["assumed"])
    assert {stage["name"] for stage in data["cost"]} == {"clean", "pgd.literature", "worst.fast(steps=5)"}
    assert data["published"] == [] and "None of the recorded numbers" in page
    for line in done.out.splitlines()[:-1]:
        assert line.rpartition(": suspect: ")[2] in html.unescape(page)
    assert "<script" not in page and "://" not in page

    again = cli(*shlex.split(data["command"])[1:], *QUICK[2:])  # resumed: nothing is measured twice
    assert again.code == EXIT_DONE and "Nothing to compute: 4 cells" in again.err
    assert audited(again.out) == (data, page)


def test_a_backbone_alone_and_a_method_that_is_trained_first(cli: Cli, tmp_path: Path) -> None:
    done = cli("audit", *GRID, "--limit", "4", *QUICK, "--protocol", "pgd(steps=2)", "--datasets", "food")
    data, page = audited(done.out)
    assert done.code == EXIT_DONE and data["subject"]["prompts"].startswith("hand-made")
    assert data["protocol"] == "pgd(steps=2)" and "given with --protocol" in page
    (tmp_path / "own.py").write_text(
        "from apd_bench.plugin import define\n"
        "METHOD = define('own', base='coop', training={'epochs': 1}, learner_options={'tokens': 2})\n"
    )
    words = ("--method", "own.py:METHOD", "--shots", "1", "--datasets", "food", "--limit", "4", "--protocol", "fgsm")
    data, page = audited(cli("audit", *GRID, *QUICK, *words).out)
    assert data["subject"]["method"] == "own" and data["cost"][0]["name"] == "fit"
    assert any("food, 1 shots, seed 1" in line for line in data["assumed"])


def test_what_is_measured_stands_there_beside_what_failed(cli: Cli, checkpoint: Path, monkeypatch: Any) -> None:
    measure = stages.evaluate_samples

    def broken(classifier: Any, test: Any, attack: Any, *rest: Any, **options: Any) -> Any:
        if test.ids[0].startswith("food"):
            raise FloatingPointError("not a number")
        return measure(classifier, test, attack, *rest, **options)

    monkeypatch.setattr(stages, "evaluate_samples", broken)
    done = cli("audit", checkpoint.name, "--format", "coop", *GRID, "--limit", "4", "--protocol", "fgsm", *QUICK)
    data, page = audited(done.out)
    assert done.code == EXIT_CELLS_FAILED and [one["dataset"] for one in data["results"]] == ["fashion"]
    assert data["failed"] == ["2 cells: not a number"] and "Not measured: 2 cells: not a number" in page


@pytest.mark.parametrize(("words", "said"), [
    (("model.pth.tar-50", "--backbone", "tiny-clean"), "What wrote 'model.pth.tar-50'? Say it with --format"),
    (("--format", "coop", "--backbone", "tiny-clean"), "Give its path first"),
    (("--eps", "1/255"), "An audit is of one model. Name its backbone"),
    (("--backbone", "tiny-clean,tiny-robust"), "An audit is of one model"),
    (("--backbone", "tiny-clean", "--datasets", "food"), "Add --eps"),
    (("--backbone", "tiny-clean", "--eps", "1/255", "--datasets", "food", "--sound", "cw-l2"), "reports a distance"),
    (("none.pth", "--format", "coop", "--backbone", "tiny-clean"), "There is no file 'none.pth'"),
    (("model.pth.tar-50", "--format", "fap", "--backbone", "tiny-clean"), "import it with --format coop"),
    (("model.pth.tar-50", "--method", "apd", "--backbone", "tiny-clean"), "are two audits"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(words: tuple[str, ...], said: str, cli: Cli, checkpoint: Path) -> None:
    done = cli("audit", *words)
    assert done.code == EXIT_USAGE and done.out == ""
    assert said in done.err and done.err.count("\n") == 1
    assert not Path("results").exists()
