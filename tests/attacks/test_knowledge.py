"""The attacker's knowledge from the command line to the board: whose gradients, which record, which table."""

import json

import pytest

from apd_bench.attacks.meter import Meter
from apd_bench.cli import main
from apd_bench.records.store import Store

WORDS = ["--methods", "advvp", "--no-reference", "--datasets", "fashion", "--attacks", "pgd(steps=5)", "--eps", "3/255",
         "--seeds", "1", "--shots", "1", "--limit", "12", "--jobs", "1", "--device", "cpu", "--display", "none",
         "--set", "training.epochs=1", "--set", "training.batch_size=10"]  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One store with the same cell under three threats, the boards of all, and who was asked for gradients."""
    folder = tmp_path_factory.mktemp("knowledge")
    results, boards = folder / "results", folder / "boards"
    asked = {}
    real = Meter.gradient
    threats = {
        "white_box": [],
        "hand_prompt": ["--set", "knowledge=hand_prompt"],
        "transfer": ["--set", "knowledge=transfer", "--set", "transfer_source=zero_shot"],
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, words in threats.items():
            seen = asked.setdefault(name, set())

            def gradient(self, x, loss, *columns, seen=seen):
                if self.persist:
                    seen.add(self.model.visual_tokens is not None)
                return real(self, x, loss, *columns)

            patch.setattr(Meter, "gradient", gradient)
            code = main(["run", *WORDS, *words, "--results", str(results), "--boards", str(boards / name)])
            assert code == 0, name
    records = {record.cell.threat.knowledge: record for record in Store(results).records()}
    return results, boards, records, asked


def test_each_threat_is_a_cell_of_its_own(measured):
    _, _, records, _ = measured
    assert sorted(records) == ["hand_prompt", "transfer", "white_box"]
    assert len({record.id for record in records.values()}) == 3
    assert len({record.cell.fit.id for record in records.values()}) == 1
    assert records["transfer"].cell.threat.source == "zero_shot"
    assert len({record.metrics["clean_accuracy"] for record in records.values()}) == 1


def test_the_examples_come_from_the_encoder_without_the_learned_prompts(measured):
    _, _, records, asked = measured
    assert asked == {"white_box": set(), "hand_prompt": {False}, "transfer": {False}}
    white = records["white_box"].metrics["robust_accuracy"]
    for name in ("hand_prompt", "transfer"):
        assert records[name].metrics["robust_accuracy"] >= white
        assert records[name].timing["backwards"] == 5 * round(12 * records[name].metrics["clean_accuracy"])


def test_the_board_says_what_the_attacker_knows(measured):
    results, boards, _, _ = measured
    for name, words in (("white_box", "white-box"), ("hand_prompt", "hand-prompt"), ("transfer", "from zero_shot")):
        text = "\n".join(path.read_text("utf-8") for path in (boards / name).rglob("*.md"))
        assert words in text
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(results.parent)
        assert main(["report", str(results), "--out", "all"]) == 0
    tables = [path.read_text("utf-8") for path in (results.parent / "all").rglob("*.md")]
    headings = [line for text in tables for line in text.splitlines() if line.startswith("#")]
    assert not [line for line in headings if "white-box" in line and "hand-prompt" in line]


def test_the_record_gives_the_command_that_repeats_it(measured, capsys):
    results, _, records, _ = measured
    assert main(["show", records["transfer"].id, "--results", str(results), "--as-command"]) == 0
    text = capsys.readouterr().out
    assert "knowledge=transfer" in text and "transfer_source=zero_shot" in text
    assert main(["show", records["hand_prompt"].id, "--results", str(results), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cell"]["threat"]["knowledge"] == "hand_prompt"


@pytest.mark.parametrize(("words", "said"), [
    (["--set", "knowledge=transfer"], "source"),
    (["--set", "transfer_source=zero_shot"], "source"),
    (["--set", "knowledge=blackbox"], "white_box, hand_prompt, transfer"),
    (["--set", "knowledge=transfer", "--set", "transfer_source=zeroshott"], "zero_shot"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_runs(words, said, tmp_path, capsys):
    assert main(["run", *WORDS, *words, "--results", str(tmp_path / "r"), "--boards", str(tmp_path / "b")]) == 2
    text = capsys.readouterr().err
    assert said in text and "Traceback" not in text
    assert not (tmp_path / "r" / "cells").exists() or not list((tmp_path / "r" / "cells").iterdir())
