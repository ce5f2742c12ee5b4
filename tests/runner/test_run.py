"""The Python surface: records, boards and classifiers of a small run, and `run` with all options."""

import doctest
import inspect
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import apd_bench
from apd_bench.core import options
from apd_bench.core.errors import MissingPrerequisite, UnknownName, UsageError
from apd_bench.core.registry import DATASETS
from apd_bench.core.specs import ThreatModel
from apd_bench.data.protocols import limit_split
from apd_bench.data.splits import load_dataset
from apd_bench.defences.parse import make_defence, parse_defence
from apd_bench.records.store import Store
from apd_bench.runner import classifiers
from apd_bench.training.prompt_states import load_state, save_state

SMALL = {
    "methods": "coop", "datasets": "food,fashion", "attacks": "fgsm,pgd(steps=2)", "limit": 10, "shots": 1,
    "settings": ["training.epochs=1"], "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return apd_bench.run(**SMALL, results=folder / "results", boards=folder / "boards")


def test_completion_shows_the_public_names_and_all_options():
    assert {"run", "evaluate", "load_records", "load_classifier"} <= set(dir(apd_bench))
    assert all(getattr(apd_bench, name) is not None for name in dir(apd_bench))
    assert set(inspect.signature(apd_bench.run).parameters) == {"strategy", *options.table()}


def test_what_is_printed_of_records_is_short(records):
    assert repr(records).endswith("8 success; methods: 2, datasets: 2")
    page = records._repr_html_()
    assert len(page) < 10_000 and page.count("<table") == 1 and "zero_shot" in page
    assert len(repr(records[0])) < 200 and "clean" in repr(records[0])
    assert repr(records.outcomes(records[0])).startswith("Outcomes(10 samples, ")
    assert len(repr(Store(records.store.path))) < 200
    measured = apd_bench.evaluate(torch.nn.Flatten(), (torch.rand(2, 1, 1, 2), [0, 1]), "fgsm")
    assert repr(measured).startswith("Measured(clean ")


def test_the_board_has_the_columns_and_numbers_of_the_csv(records):
    board = records.board()
    written = pd.read_csv(records.store.path.parent / "boards" / "embedded.csv")
    assert list(board.columns) == list(written.columns) and {"worst low", "worst high"} <= set(board.columns)
    assert set(board["method"]) == {"coop", "zero_shot"}
    for name in ("clean", "fgsm", "worst", "worst low", "worst high"):
        assert board[name].astype(float).tolist() == pytest.approx(written[name].tolist())


def test_a_dry_run_counts_and_writes_nothing(records, tmp_path):
    grid = SMALL | {"seeds": "1,2"}
    planned = apd_bench.run(**grid, results=tmp_path / "new", dry_run=True)
    assert (planned.report.planned, planned.report.to_do, len(planned)) == (12, 12, 0)
    assert not (tmp_path / "new").exists()
    more = apd_bench.run(**grid, results=records.store.path, dry_run=True)
    assert (more.report.already_done, more.report.to_do, len(more)) == (8, 4, 8)


def test_a_notebook_shows_the_last_lines_in_one_output(monkeypatch, tmp_path, capsys, recwarn):
    shown = []
    handle = SimpleNamespace(update=lambda content, raw: shown.append(content["text/plain"]))

    def display(content, raw, display_id):
        shown.append(content["text/plain"])
        return handle

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    small = {"methods": "zero_shot", "datasets": "food", "attacks": "none", "limit": 4, "device": "cpu"}
    for word in (None, "rich"):
        shown.clear()
        apd_bench.run(**small, results=tmp_path / str(word), display=word)
        assert "1 to measure" in shown[0] and "clean" in shown[-1] and len(shown) >= 3
    assert capsys.readouterr() == ("", "") and not recwarn.list


def test_a_cell_is_loaded_as_what_was_measured(records):
    for record in records:
        if record.cell.attack.name != "fgsm":
            continue
        model = apd_bench.load_classifier(record.id[:8], results=records.store.path)
        outcomes = records.outcomes(record)
        test = limit_split(load_dataset(DATASETS.get(record.cell.dataset.name), image_size=40).test, 10)
        x = test.pixels(range(10))
        assert list(test.ids) == outcomes.sample_id.tolist()
        assert model(x).argmax(1).tolist() == outcomes.clean_prediction.tolist()
        assert torch.equal(records.classifier(record)(x), model(x))
        assert torch.equal(apd_bench.load_classifier(record.cell.fit.id, results=records.store.path)(x), model(x))


def test_it_is_a_module_for_any_attack_loop(records):
    model = records.classifier(records[0], device="cpu")
    assert isinstance(model, torch.nn.Module) and not model.training and next(model.parameters()).device.type == "cpu"
    assert not any(parameter.requires_grad for parameter in model.parameters())
    data = load_dataset(DATASETS.get(records[0].cell.dataset.name), image_size=40).test
    x, y = data.pixels(range(8)), data.labels[:8]
    moving = x.clone().requires_grad_(True)
    torch.nn.functional.cross_entropy(model(moving), y).backward()
    attacked = (x + 8 / 255 * moving.grad.sign()).clamp(0, 1)
    assert (model(attacked).argmax(1) == y).sum() < (model(x).argmax(1) == y).sum()
    result = apd_bench.evaluate(model, (x, y), "fgsm", ThreatModel(eps=8 / 255))
    assert result.robust_accuracy < result.clean_accuracy


def test_torchattacks_takes_it_as_it_is(records):
    torchattacks = pytest.importorskip("torchattacks")
    model = records.classifier(records[0])
    x = torch.rand(2, 3, 40, 40)
    assert (torchattacks.PGD(model, eps=4 / 255, steps=2)(x, torch.tensor([0, 1])) - x).abs().max() <= 4 / 255 + 1e-6


def test_prompts_are_carried_to_the_classes_of_another_set(records, tmp_path):
    fit = next(record.cell.fit for record in records if record.cell.fit.method.name == "coop")
    folder = records.store.fit_path(fit.id)
    assert apd_bench.load_classifier(folder, "animals").num_classes == len(
        load_dataset(DATASETS.get("animals"), image_size=40).classes
    )
    state = load_state(folder)
    save_state(tmp_path / "imported", type(state)(state.state, state.card | {"classes": ["object"]}))
    with pytest.raises(UsageError, match="Name the set"):
        apd_bench.load_classifier(tmp_path / "imported")
    assert apd_bench.load_classifier(str(tmp_path / "imported"), "food").num_classes == 14
    save_state(tmp_path / "local", type(state)(state.state, state.card | {"backbone": {"name": "local"}}))
    with pytest.raises(UsageError, match="Give it as backbone="):
        apd_bench.load_classifier(tmp_path / "local")
    assert apd_bench.load_classifier(tmp_path / "local", backbone="tiny-robust").num_classes > 1


def test_what_is_not_there_or_other_than_what_was_measured_is_one_sentence(records, tmp_path):
    with pytest.raises(MissingPrerequisite, match="Say where they are with results="):
        apd_bench.load_classifier(records[0], results=tmp_path)
    for name in ("0123", "nothing", "../"):
        with pytest.raises(UnknownName, match="is neither a cell nor a fit"):
            apd_bench.load_classifier(name, results=records.store.path)
    shutil.copytree(records.store.path, tmp_path / "results")
    shutil.rmtree(tmp_path / "results" / "fits")
    with pytest.raises(MissingPrerequisite, match="Measure it again"):
        apd_bench.load_classifier(records[0].id, results=tmp_path / "results")


def test_a_cell_with_a_defence_is_loaded_behind_it(records, tmp_path):
    shutil.copytree(records.store.path, tmp_path / "results")
    store = Store(tmp_path / "results")
    cell = replace(records[0].cell, defence=parse_defence("anti_adversary"))
    with store.writer():
        store.put(replace(records[0], id=cell.id, cell=cell), records.outcomes(records[0]))
    x = torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    plain, defended = (apd_bench.load_classifier(name, results=store.path) for name in (records[0].id, cell.id))
    assert torch.equal(defended(x), make_defence(cell.defence, plain)(x)) and not torch.equal(defended(x), plain(x))


def test_the_example_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(classifiers)
    assert tried == 4 and failed == 0
