"""`verify` passes on what it was taught, and turns red for each deliberate defect of attack, teacher or labels."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from apd_bench.attacks import pgd
from apd_bench.attacks.meter import Meter
from apd_bench.attacks.projections import Region
from apd_bench.cli import main
from apd_bench.core.errors import EXIT_DONE, EXIT_REGRESSION, EXIT_USAGE
from apd_bench.leaderboard.pictures import load_examples
from apd_bench.methods.apd import Distillation
from apd_bench.records.store import Store
from apd_bench.runner import stages
from apd_bench.training.prompt_states import load_state, save_state

SUITE = """
extends = "ci"
name = "mini"
datasets = ["fashion"]
methods = ["apd"]
attacks = ["pgd(steps=10)"]
limit = 32
shots = [1]
"""
QUIET = ("--jobs", "1", "--device", "cpu", "--quiet")


def sent_and_checked(store, archive, *words):
    """The exit code of `verify-submission` on an archive of the cells of apd in `store`."""
    assert main(["submit", str(store), "--methods", "apd", "--out", str(archive)]) == EXIT_DONE
    return main(["verify-submission", str(archive), *QUIET, *words])


@dataclasses.dataclass
class Verified:
    """A small grid that was run once, and what is expected of it."""

    suite: Path
    expected: Path
    results: Path

    def run(self, results, *words):
        """The exit code of `verify` on records in `results`."""
        places = ("--suite", str(self.suite), "--expected", str(self.expected), "--results", str(results))
        return main(["verify", *places, *QUIET, *words])

    def attack_again(self, folder):
        """The exit code after the same prompts were attacked again."""
        shutil.copytree(self.results / "fits", folder / "fits")
        return self.run(folder)


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    made = Verified(folder / "mini.toml", folder / "mini.json", folder / "results")
    made.suite.write_text(SUITE)
    assert made.run(made.results, "--update") == EXIT_DONE
    return made


def test_nothing_changed_is_green_and_without_expected_values_it_says_how_to_make_them(verified, capsys, tmp_path):
    assert verified.run(verified.results) == EXIT_DONE
    assert "As expected" in capsys.readouterr().out
    missing = dataclasses.replace(verified, expected=tmp_path / "none.json")
    assert missing.run(tmp_path / "r") == EXIT_USAGE
    assert "apd-bench verify --update" in capsys.readouterr().err


def zero_step(steps, first, schedule):
    return [0.0] * steps


def wrong_sign(self, x, g, α):
    return STEP(self, x, -g, α)


def normalised_twice(self, x, loss, *columns):
    *seen, _ = GRADIENT(self, x, loss, *columns)
    return (*seen, GRADIENT(self, (x - 0.45) / 0.27, loss, *columns)[-1])


STEP = Region.step
GRADIENT = Meter.gradient
DISTIL = Distillation.__call__


@pytest.mark.parametrize(
    ("place", "name", "defect"),
    [(pgd, "lengths", zero_step), (Region, "step", wrong_sign), (Meter, "gradient", normalised_twice)],
    ids=["step size zero", "wrong sign", "normalised twice"],
)
def test_a_weakened_attack_is_red(place, name, defect, verified, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(place, name, defect)
    assert verified.attack_again(tmp_path / "r") == EXIT_REGRESSION
    shown = capsys.readouterr().out
    assert "robust" in shown
    assert "clean" not in shown.replace("tiny-clean", "")


def test_a_swapped_label_is_red(verified, tmp_path, monkeypatch, capsys):
    original = stages.limit_split

    def swapped(split, limit):
        found = original(split, limit)
        labels = found.labels.clone()
        labels[found.labels == 0], labels[found.labels == 1] = 1, 0
        return dataclasses.replace(found, labels=labels)

    monkeypatch.setattr(stages, "limit_split", swapped)
    assert verified.attack_again(tmp_path / "r") == EXIT_REGRESSION
    assert "clean" in capsys.readouterr().out.replace("tiny-clean", "")


def test_a_teacher_on_the_wrong_image_is_red(verified, tmp_path, monkeypatch, capsys):
    def wrong_image(self, student, batch, adversary, teacher):
        return DISTIL(self, student, batch, adversary, lambda pixels: teacher(torch.roll(pixels, 1, dims=0)))

    monkeypatch.setattr(Distillation, "__call__", wrong_image)
    assert verified.run(tmp_path / "r") == EXIT_REGRESSION
    assert "kl_adversarial" in capsys.readouterr().out


def test_a_submission_of_these_results_is_checked_by_measuring_again(verified, tmp_path, capsys):
    accepted, words = tmp_path / "accepted", ("--cells", "1", "--accept", str(tmp_path / "accepted"))
    assert sent_and_checked(verified.results, tmp_path / "mine.tar.gz", *words) == EXIT_DONE
    assert "all 32 samples agree" in capsys.readouterr().out
    assert [record.cell.fit.method.name for record in Store(accepted).records()] == ["apd"]


def test_a_submission_with_invented_outcomes_is_refused(verified, tmp_path, capsys):
    forged = Store(tmp_path / "forged")
    with forged.writer():
        shutil.copytree(verified.results / "fits", forged.fits)
        for record in Store(verified.results).records():
            outcomes = Store(verified.results).outcomes(record.id)
            better = dataclasses.replace(outcomes, broken=outcomes.clean_prediction != outcomes.label)
            claimed = {"n": len(better), "clean_accuracy": float((~better.broken).mean())}
            claimed["robust_accuracy"] = claimed["clean_accuracy"]
            forged.put(dataclasses.replace(record, metrics=claimed), better)
    assert sent_and_checked(forged.path, tmp_path / "forged.tar.gz", "--cells", "1") == EXIT_REGRESSION
    assert "samples that differ" in capsys.readouterr().out


def test_a_submission_with_other_prompts_is_refused(verified, tmp_path, capsys):
    forged = Store(tmp_path / "forged")
    shutil.copytree(verified.results, forged.path)
    (record,) = [item for item in forged.records() if item.cell.fit.method.name == "apd"]
    state = load_state(forged.fit_path(record.cell.fit.id))
    noisy = {name: tensor + 0.3 * torch.randn(tensor.shape) for name, tensor in state.state.items()}
    save_state(tmp_path / "state", dataclasses.replace(state, state=noisy))
    with forged.writer():  # all digests are made to fit
        files = {path.name: path.read_bytes() for path in (tmp_path / "state").iterdir()}
        forged.put_fit(record.cell.fit.id, files)
    accepted = tmp_path / "accepted"
    words = ("--accept", str(accepted))
    assert sent_and_checked(forged.path, tmp_path / "forged.tar.gz", *words) == EXIT_REGRESSION
    assert "samples that differ" in capsys.readouterr().out
    assert not accepted.exists()


def test_examples_show_what_the_record_says(verified, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(verified.results, folder)
    assert main(["examples", str(folder), "--methods", "apd", "zero_shot", "--count", "2"]) == EXIT_DONE
    of = {item.cell.fit.method.name: Store(folder).outcomes(item.id) for item in Store(folder).records()}
    shown = load_examples([folder])
    samples = [{item["sample"] for item in shown if item["method"] == name} for name in ("apd", "zero_shot")]
    assert samples[0] == samples[1] and len(shown) == 4  # the same images
    for item in shown:
        outcomes = of[item["method"]]
        place = outcomes.sample_id.tolist().index(item["sample"])
        assert (item["adversarial_prediction"] != item["label"]) == bool(outcomes.broken[place])
        assert item["clean_prediction"] == item["label"]
    board = tmp_path / "board.html"
    assert main(["report", str(folder), "--board", str(board)]) == EXIT_DONE
    assert board.read_text().count('<span class="verdict') == 4
