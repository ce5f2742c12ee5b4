"""No name in a record, card, prompt state, archive or suite makes code run; code that somebody names does."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest

from apd_bench.cli import main
from apd_bench.core.errors import EXIT_DONE, EXIT_USAGE, CorruptFile
from apd_bench.core.registry import ATTACKS, BACKBONES, METHODS
from apd_bench.core.specs import BackboneSpec
from apd_bench.methods import classes
from apd_bench.records.record import Record, sealed
from apd_bench.records.store import Store

QUIET = ("--jobs", "1", "--device", "cpu", "--quiet")
SMALL = ("--datasets", "fashion", "--attacks", "none", "--limit", "5", "--shots", "1", "--eps", "1/255")
HALVED = """
from apd_bench.plugin import define
from apd_bench.prompts.text import TextLearner

class Halved(TextLearner):
    def forward(self):
        prompts = super().forward()
        return type(prompts)(text=type(prompts.text)(context=self.context / 2, rows=self.rows()))

METHOD = define("halved", base="coop", learner=Halved, learner_options={"tokens": 2})
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A store with one measured cell of zero-shot CLIP."""
    folder = tmp_path_factory.mktemp("measured")
    words = [*SMALL, *QUIET, "--methods", "zero_shot", "--no-reference", "--results", str(folder / "results")]
    assert main(["run", *words, "--boards", str(folder / "boards")]) == EXIT_DONE
    return folder / "results"


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that appears when one of the module `mischief` or the file mischief.py is imported."""
    (tmp_path / "mischief.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "def run(*given, **options):\n    raise SystemError\nclass Run:\n    __init__ = run\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mischief", raising=False)
    return tmp_path / "ran"


def forged(measured, target, **changes):
    """A copy of the store in `target`, its card (key `card`) or the parts of its cell changed, all ids made to fit."""
    (record,) = Store(measured).records()
    fit = dataclasses.replace(record.cell.fit, **{
        name: dataclasses.replace(getattr(record.cell.fit, name), **changes.get(name, {}))
        for name in ("backbone", "dataset", "method")
    })  # fmt: skip
    cell = dataclasses.replace(record.cell, fit=fit, dataset=fit.dataset)
    files = {path.name: path.read_bytes() for path in Store(measured).fit_path(record.cell.fit.id).iterdir()}
    card = json.loads(files["card.json"])
    card["recipe"] |= {**changes.get("card", {}), "code": "mischief.py", "state": "mischief.py"}
    files["card.json"] = json.dumps(card).encode()
    files.pop("manifest.json", None)
    outcomes = Store(measured).outcomes(record.id)
    store = Store(target)
    with store.writer():
        store.put_fit(fit.id, files)
        return store.put(dataclasses.replace(record, id=cell.id, cell=cell), outcomes)


@pytest.mark.parametrize("name", ["mischief:Run", "file:Run", "mischief.py:Run"])
@pytest.mark.parametrize("digest", [None, "0123456789abcdef"])
def test_no_learner_of_a_card_is_imported(name, digest, cli, measured, marker, tmp_path):
    forged(measured, tmp_path / "forged", card={"learner": name, "digest": digest})
    assert cli("submit", "forged", "--out", "forged.tar.gz").code == EXIT_DONE
    found = cli("verify-submission", "forged.tar.gz", "--jobs", "1", "--device", "cpu")
    assert found.code == EXIT_USAGE and f"'{name}'" in found.err and "Traceback" not in found.err
    shutil.copytree(Store(tmp_path / "forged").fit_path(next(Store("forged").records()).cell.fit.id), "state")
    assert "Traceback" not in cli("run", *SMALL, *QUIET, "--methods", "./state").err
    assert not marker.exists()


@pytest.mark.parametrize("changes", [
    {"method": {"learner": "mischief:Run"}},
    {"method": {"objective": "mischief:Run"}},
    {"method": {"state": "mischief.py"}},
    {"backbone": {"loader": "mischief:run"}},
    {"dataset": {"loader": "mischief:run"}},
])  # fmt: skip
def test_no_part_of_a_record_is_imported(changes, cli, measured, marker, tmp_path):
    record = forged(measured, tmp_path / "results", **changes)
    path = Store("results").record_path(record.id)
    data = json.loads(path.read_text())
    for part, values in changes.items():  # what is never written is written here by hand
        data["cell"]["fit"][part] |= values
    path.write_text(sealed(data))
    cli("submit", "--out", "forged.tar.gz")
    for words in (
        ("verify-submission", "forged.tar.gz", *QUIET), ("examples", "results"), ("report", "results"),
        ("show", record.id[:6], "--as-command"), ("list", "cells"),
        ("run", *SMALL, *QUIET, "--methods", "zero_shot", "--no-reference"),
    ):  # fmt: skip
        assert "Traceback" not in cli(*words).err, words
    assert not marker.exists()


def test_no_verb_prints_a_name_raw(cli, measured, tmp_path):
    evil = dict.fromkeys(("name", "title"), "mine\x1b[31m\x07\x9b2J\u202e")
    record = forged(measured, tmp_path / "results", method=evil, dataset=evil, backbone=evil)
    for words in (
        ("list", "cells"), ("show", record.id), ("show", record.id, "--json"), ("show", record.id, "--as-command"),
        ("report",), ("report", "--out", "boards", "--format", "md,csv,json,tex,html"), ("submit",), ("examples",),
        ("compare", "mine\x1b", "zero_shot"), ("compare", evil["name"], evil["name"]), ("plot", "eps"),
    ):  # fmt: skip
        found = cli(*words)
        assert not set(found.out + found.err) & set("\x1b\x07\x9b\u202e") and "Traceback" not in found.err, words
    for path in Path("boards").iterdir():
        assert not set(path.read_text()) & set("\x1b\x07\x9b\u202e"), path


@pytest.mark.parametrize("part", ["method", "backbone", "dataset", "attack", "threat"])
def test_a_record_that_names_a_python_file_is_damaged(part, measured, marker):
    (record,) = Store(measured).records()
    data = json.loads(record.to_json())
    place = data["cell"] if part in ("attack", "threat") else data["cell"]["fit"]
    source = {"source": "mischief.py:Run", "knowledge": "transfer"}
    place[part] |= source if part == "threat" else {"name": "mischief.py:Run(steps=1)"}
    with pytest.raises(CorruptFile, match="the name of a Python file"):
        Record.from_json(sealed(data))
    assert not marker.exists()


@pytest.mark.parametrize("key", ["methods", "attacks", "datasets", "backbones", "reference", "transfer_source"])
def test_no_file_that_a_suite_names_is_run(key, cli, marker, tmp_path):
    value = "'mischief.py:Run'" if key == "transfer_source" else "['mischief.py:Run']"
    Path("mine.toml").write_text(f"extends = 'ci'\n{key} = {value}\n")
    found = cli("plan", "mine.toml")
    assert found.code == EXIT_USAGE and "names a Python file" in found.err and not marker.exists()


def test_a_learner_of_ones_own_is_verified_once_it_is_named(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("APD_BENCH_CACHE", str(tmp_path / "cache"))
    Path("mine.py").write_text(HALVED)
    quick = ("--set", "training.epochs=1", "--no-reference")
    assert cli("run", *SMALL, *QUIET, *quick, "--methods", "mine.py:METHOD").code == EXIT_DONE
    assert cli("submit", "--methods", "mine.py:METHOD", "--out", "mine.tar.gz").code == EXIT_DONE
    (record,) = Store("results").records()
    named = cli("show", record.id, "--as-command")
    assert f"--methods {tmp_path / 'mine.py'}:METHOD" in named.out and not named.err
    classes._CLASSES.clear()  # as in another process
    METHODS.unregister("halved")
    assert cli("submit", "--methods", "halved", "--out", "mine.tar.gz").code == EXIT_DONE
    named = cli("show", record.id, "--as-command")
    assert f"--methods {tmp_path / 'mine.py'}:METHOD" in named.out and "name its code: --methods" in named.err
    words = ("verify-submission", "mine.tar.gz", "--jobs", "1", "--device", "cpu")
    asked = cli(*words)
    assert asked.code == EXIT_USAGE and "--methods FILE.py:NAME" in asked.err
    for module in [name for name in sys.modules if name.startswith("apd_bench_plugin_")]:
        del sys.modules[module]
    assert cli("examples", "--methods", "mine.py:METHOD", "--count", "1").code == EXIT_DONE
    assert not cli("show", record.id, "--as-command", "--methods", "mine.py:METHOD").err
    found = cli(*words, "--methods", "mine.py:METHOD")
    assert found.code == EXIT_DONE and "all 5 samples agree" in found.out, found.err
    Path("mine.py").write_text(HALVED.replace("/ 2", "/ 3"))
    METHODS.unregister("halved")
    classes._CLASSES.clear()
    other = cli(*words, "--methods", "mine.py:METHOD")
    assert other.code == EXIT_USAGE and "the one that is here has" in other.err


def test_an_attack_in_a_file_is_measured_and_its_code_counts(cli):
    text = (
        "from apd_bench.attacks import simple\nfrom apd_bench.attacks.catalog import AttackEntry\n"
        "def mine(search, draws):\n    return simple.noise(search, draws=draws)\n"
        "MINE = AttackEntry('mine', f'{__name__}:mine', 'noise of my own', {'draws': 2})\n"
    )
    Path("mine.py").write_text(text)
    words = ("--datasets", "fashion", "--limit", "5", "--eps", "1/255", "--methods", "zero_shot", "--no-reference")
    assert cli("run", *words, *QUIET, "--attacks", "mine.py:MINE(draws=3)").code == EXIT_DONE
    (record,) = Store("results").records()
    assert record.cell.attack.label == "mine(draws=3)" and record.cell.attack.code == ATTACKS.get("mine").code
    Path("mine.py").write_text(text + "# other\n")
    assert cli("run", *words, *QUIET, "--attacks", "mine.py:MINE(draws=3)").code == EXIT_DONE
    assert len(list(Store("results").records())) == 2


def test_validation_images_are_measured_in_tables_of_their_own(cli, measured, tmp_path):
    shutil.copytree(measured, tmp_path / "results")
    words = (*SMALL, *QUIET, "--methods", "zero_shot", "--no-reference", "--set", "split=val")
    assert cli("run", *words).code == EXIT_DONE
    records = {record.cell.split: record for record in Store("results").records()}
    assert set(records) == {"test", "val"}
    ids = {name: set(Store("results").outcomes(record.id).sample_id) for name, record in records.items()}
    assert not ids["test"] & ids["val"] and all("/val/" in item for item in ids["val"])
    found = cli("report", "results")
    assert "split: test" in found.out and "split: val" in found.out and found.out.count("| 1 | zero_shot") == 2
    assert "--set split=val" in cli("show", records["val"].id, "--as-command").out
    assert "is not one of: test, val" in cli("run", *words[:-1], "split=train").err


def test_a_backbone_and_a_dataset_in_a_file_are_measured(cli, tmp_path):
    Path("mine.py").write_text(
        "import dataclasses\nfrom apd_bench.core.registry import BACKBONES, DATASETS\n"
        "from apd_bench.backbones.load import load_backbone\nfrom apd_bench.data.embedded import load\n"
        "def twin(spec, device='cpu'):\n    return load_backbone(BACKBONES.get('tiny-clean'), device)\n"
        "def clothes(spec, **how):\n    return dataclasses.replace(load(DATASETS.get('fashion'), **how), spec=spec)\n"
        "MODEL = dataclasses.replace(BACKBONES.get('tiny-clean'), name='twin', aliases=(), loader=f'{__name__}:twin')\n"
        "CLOTHES = dataclasses.replace(DATASETS.get('fashion'), name='clothes', aliases=(),\n"
        "                              loader=f'{__name__}:clothes')\n"
    )
    words = ("--attacks", "none", "--limit", "5", "--eps", "1/255", "--methods", "zero_shot", "--no-reference")
    own = ("--backbone", "mine.py:MODEL", "--datasets", "mine.py:CLOTHES")
    assert cli("run", *words, *own, "--jobs", "2", "--device", "cpu", "--quiet").code == EXIT_DONE
    (record,) = Store("results").records()
    assert record.done and (record.cell.dataset.name, record.cell.fit.backbone.name) == ("clothes", "twin")
    assert isinstance(BACKBONES.get("twin"), BackboneSpec) and BACKBONES.get("twin").code == record.cell.dataset.code
    assert "mine.py" not in record.to_json()
    assert cli("run", *words, "--datasets", "mine.py:MODEL").code == EXIT_USAGE
