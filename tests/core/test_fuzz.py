"""Whatever is changed in a file that is read, the answer is the same table, or one sentence; never a traceback.

Mutations are drawn from a seed that stands in the failure, so that each can be repeated.
"""

import io
import json
import os
import random
import shutil
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import cell, fill, method, outcomes, record
from test_submission import METRICS, rewritten

from apd_bench.backbones.weights import read_checkpoint
from apd_bench.cli import main
from apd_bench.cli.import_ import FORMATS
from apd_bench.core.errors import UserError
from apd_bench.core.files import sha256
from apd_bench.core.options import RunOptions
from apd_bench.core.package_data import package_path
from apd_bench.core.registry import DATASETS
from apd_bench.data.splits import load_dataset
from apd_bench.leaderboard.boards import FORMATS as BOARDS
from apd_bench.leaderboard.boards import collect, render_files
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import sealed
from apd_bench.records.store import Store
from apd_bench.records.submission import check_records, draw_cells, pack, unpack
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import resolve
from apd_bench.suites import load_suite
from apd_bench.training.importers import import_prompts
from apd_bench.training.prompt_states import PromptState, load_state, restore, save_state
from apd_bench.training.toy import toy_backbone

VALUES = [
    None, True, False, 0, 1, -1, 2**70, 10**400, 0.5, -0.0, 1e308, "", "x", "1/255", "\x1b[31m\x07", "../../x",
    "é\ud800", "x" * 3000, [], [[]], ["x"], [1, 2], [None], {}, {"x": 1}, {"name": "x"}, [[[[[[[[[[]]]]]]]]]],
]  # fmt: skip


SUITE = {
        "extends": "embedded", "title": "mine", "methods": ["apd", "coop"], "datasets": ["animals"], "eps": ["1/255"],
        "attacks": ["pgd(steps=3)"], "seeds": [1], "shots": [4], "limit": 5, "norm": "Linf", "train_eps": "1/255",
        "recipe": {"training": {"epochs": 2}}, "recipes": {"apd": {"learner": {"tokens": 2}}}, "options": {"jobs": 1},
        "rules": [{"shots": [4], "recipe": {"training": {"epochs": 3}}}], "sources": {"eps": "mine"},
    }  # fmt: skip


def bent(text, chance):
    """`text` with one to three bytes changed, cut out, put in or repeated."""
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(text) + 1)
        stop = min(place + chance.choice((1, 1, 1, 8, 200)), len(text))
        signs = (b"0", b"9", b"e", b'"', b"[" * 99)
        new = chance.choice((b"", bytes([chance.randrange(256)]), *signs, text[place:stop] * 2))
        text = text[:place] + new + text[stop:]
    return text


def twisted(value, chance):
    """A JSON value with one value in it replaced, left out, renamed or added."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        how = chance.random()
        if how < 0.05:
            return {name: item for name, item in value.items() if name != key}
        if how < 0.1:
            return {**value, chance.choice(("x", key + "x", "\x1b", "")): chance.choice(VALUES)}
        return {**value, key: twisted(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        return [*value[:place], twisted(value[place], chance), *value[place + 1 :]]
    return chance.choice(VALUES)


@contextmanager
def sentence():
    """Only a UserError may come out, and what it says is one printable line."""
    try:
        yield
    except UserError as error:
        assert str(error).isprintable() or not set(str(error)) & set("\x1b\x07"), repr(str(error))
        assert error.message


def text_of(data):
    return json.dumps(data).encode()


def forged(data):
    """A record with the digest that its text should have, where there is room for one."""
    try:
        return sealed(data).encode(errors="replace")
    except (TypeError, ValueError):
        return text_of(data)


def tables_of(path, formats=("csv", "md")):
    """The boards of a store as CSV, and the notes on what is left out of them."""
    boards = collect([path])
    files = render_files(boards, formats)
    return [files[name] for name in sorted(files) if name.endswith("csv")], boards.notes


def opened(path):
    """Reads an image folder to its last pixel."""
    spec = DATASETS.get(f"folder:{path}")
    assert spec.digest
    test = load_dataset(spec, image_size=8).split("test")
    assert len(test.images(np.arange(len(test))))


def planned(path):
    """Reads a suite down to the ids of some of its cells."""
    suite = resolve(load_suite(str(path)), RunOptions(methods=("coop",), datasets=("animals",), limit=4))
    suite = suite.with_options(seeds=suite.seeds[:2], eps=suite.eps[:2], attacks=suite.attacks[:2])
    assert all(one.id for one in plan(suite).cells)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store, an archive of it, a prompt state, a suite and an image folder, all sound."""
    home = tmp_path_factory.mktemp("sound")
    items = [
        (record(cell(method_spec=method(name), attack=attack), metrics=METRICS), outcomes([1, 1, 0], [1, 0, 0]))
        for name in ("mine", "other")
        for attack in ("pgd", "cw")
    ]
    store = Store(fill(home / "store", items))
    card = {"recipe": {"name": "coop", "learner": "text", "objective": "ce", "learner_options": {"tokens": 2}},
            "classes": ["a", "b"], "template": "a {}.", "seed": 1, "history": [{"loss": 1.0}]}  # fmt: skip
    save_state(home / "state", PromptState({"context": torch.zeros(2, 4)}, card))
    files = {path.name: path.read_bytes() for path in (home / "state").iterdir()}
    with store.writer():
        for fit in {item.cell.fit.id for item, _ in items}:
            store.put_fit(fit, files)
    pack([store.path], home / "a.tar.gz", methods=[], author="me")
    for label in ("cat", "dog"):
        for number in range(4):
            path = home / "images" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), number + 9 * (label == "cat"), np.uint8)).save(path)
    (home / "suite.json").write_text(json.dumps(SUITE))
    (home / "boards.csv").write_text("".join(tables_of(store.path, tuple(BOARDS))[0]))
    assert load_state(home / "state").recipe
    opened(home / "images")
    planned(home / "suite.json")
    unpack(home / "a.tar.gz", home / "sound")
    assert len(check_records(Store(home / "sound"))) == 4
    torch.save({"state_dict": {"x.weight": torch.ones(3)}, "epoch": 3}, home / "weights.pt")
    (home / "weights.safetensors").write_bytes((home / "state" / "state.safetensors").read_bytes())
    for path in home.glob("weights.*"):
        assert read_checkpoint(path)[0]
    return home


def fuzz_record(home, work, chance):
    """A changed letter anywhere in a store: the same tables, or a note that something is left out."""
    before = (home / "boards.csv").read_text()
    shutil.copytree(home / "store", work, symlinks=True)
    path = chance.choice(sorted(path for path in work.rglob("*") if path.is_file()))
    kind = chance.choice(("bend", "bend", "bend", "link", "folder", "swap"))
    if kind == "bend":
        path.write_bytes(bent(path.read_bytes(), chance))
    elif kind == "swap":
        other = chance.choice(sorted(other for other in work.rglob(f"*{path.suffix}") if other.is_file()))
        path.write_bytes(other.read_bytes())
    else:
        path.unlink()
        path.symlink_to("nowhere") if kind == "link" else path.mkdir()
    with sentence():
        after, notes = tables_of(work)
        assert "".join(after) == before or notes, path
    with sentence(), Store(work).writer() as store:
        statuses = store.statuses()
        assert len(statuses) + len(store.set_damaged_aside()) >= 4
        assert store.statuses() == statuses and not store.damaged()
        for fit in sorted(entry.name for entry in os.scandir(store.fits) if not entry.name.startswith(".")):
            store.fit_problem(fit)


def fuzz_sealed_record(home, work, chance):
    """A forged record, with its digest as it should be."""
    shutil.copytree(home / "store", work)
    path = chance.choice(sorted(work.glob("cells/*/*.json")))
    data = twisted(json.loads(path.read_text()), chance)
    path.write_bytes(forged(data))
    with sentence():
        tables_of(work)


def fuzz_archive(home, work, chance):
    """An archive with a changed file in it, or changed as a whole."""
    work.mkdir()
    archive = work / "bad.tar.gz"
    sound = home / "sound"
    name = chance.choice(sorted(str(path.relative_to(sound)) for path in sound.rglob("*") if path.is_file()))
    content = (sound / name).read_bytes()
    if name.endswith(".json") and chance.random() < 0.7:
        data = twisted(json.loads(content), chance)
        content = forged(data) if name.startswith("cells") else text_of(data)
    else:
        content = bent(content, chance)
    changes = {name: content}
    if name != "submission.json":
        manifest = json.loads((sound / "submission.json").read_bytes())
        manifest["files"][name] = sha256(content)
        changes["submission.json"] = text_of(manifest)
    rewritten(home / "a.tar.gz", archive, changes)
    if chance.random() < 0.2:
        archive.write_bytes(bent(archive.read_bytes(), chance))
    with sentence():
        unpack(archive, work / "u")
        draw_cells(check_records(Store(work / "u")), 5, 1)


def fuzz_npz(home, work, chance):
    """Per-sample outcomes: the same values or a refusal."""
    sound = outcomes([1, 1, 0], [1, 0, 0], distance=[0.5, 1.0, 2.0])
    with sentence():
        found = Outcomes.from_bytes(bent(sound.to_bytes(), chance))
        columns = dict(sound.columns())
        for name, column in found.columns():  # a name has no checksum in the format: a column may be missed
            np.testing.assert_array_equal(column, columns.get(name, column))


def fuzz_state(home, work, chance):
    """The card and the tensors of a prompt state."""
    shutil.copytree(home / "state", work)
    path = work / chance.choice(("card.json", "state.safetensors"))
    if path.suffix == ".json" and chance.random() < 0.7:
        path.write_bytes(text_of(twisted(json.loads(path.read_text()), chance)))
    else:
        path.write_bytes(bent(path.read_bytes(), chance))
    with sentence():
        assert load_state(work).recipe


def fuzz_suite(home, work, chance):
    """A suite as TOML and as JSON, to its cells."""
    path = work.with_suffix(".json")
    if chance.random() < 0.3:
        path = work.with_suffix(".toml")
        path.write_bytes(bent(package_path("suites", "embedded.toml").read_bytes(), chance))
    else:
        path.write_bytes(bent(text_of(SUITE), chance) if chance.random() < 0.2 else text_of(twisted(SUITE, chance)))
    with sentence():
        planned(path)


def fuzz_setting(home, work, chance):
    """What is typed after --set, and as attacks, budgets and names."""
    words = ["training", "epochs", "learner", "tokens", "train_eps", ".", ".", "=", "=", "3", "1/255", "apd", "[", "(",
             "'x'", "\x1b", "None", "nan", "1e999", "é", "\x00", "{}", ",", " ", "-1", "pgd", "steps", ")",
             "9" * 5000]  # fmt: skip

    def word():
        return "".join(chance.choices(words, k=chance.randint(1, 7)))

    given = {chance.choice(("settings", "attacks", "eps", "methods", "datasets", "backbones")): (word(),)}
    if chance.random() < 0.5:
        given = {"settings": (f"{chance.choice(('training.epochs', 'apd.learner.tokens', 'train_eps'))}={word()}",)}
    with sentence():
        plan(resolve(load_suite("ci"), RunOptions(**{"methods": ("coop",), "datasets": ("animals",), **given})))


def fuzz_dataset(home, work, chance):
    """dataset.toml, classnames.txt and the folders beside them."""
    shutil.copytree(home / "images", work)
    text = 'template = "a {}"\nlicence = "CC0"\n[classes]\ncat = "Cat"\ndog = "Dog"\n'
    for _ in range(chance.randint(0, 2)):
        lines = text.splitlines()
        place = chance.randrange(len(lines))
        value = chance.choice(
            ("3", "[]", "['{}', 3]", "{x = 1}", "true", "''", '"\\u001b"', "2020-01-01", "nan", "['a {}', 'b {}']")
        )
        other = f"{lines[place].partition('=')[0]}= {value}"
        lines[place] = chance.choice((other, lines[place] * 2, f"x{lines[place]}"))
        text = "\n".join(lines)
    (work / "dataset.toml").write_bytes(bent(text.encode(), chance) if chance.random() < 0.5 else text.encode())
    if chance.random() < 0.4:
        names = "Cat\nDog\n".encode(chance.choice(("utf-8", "utf-16", "utf-8-sig")))
        (work / "classnames.txt").write_bytes(bent(names, chance))
    if chance.random() < 0.3:
        path = chance.choice(sorted(work.rglob("*.png")))
        path.write_bytes(bent(path.read_bytes(), chance))
    with sentence():
        opened(work)


def fuzz_weights(home, work, chance):
    """A checkpoint as torch or safetensors writes it."""
    kind = chance.choice((".pt", ".safetensors"))
    path = work.with_suffix(kind)
    path.write_bytes(bent((home / f"weights{kind}").read_bytes(), chance))
    with sentence():
        read_checkpoint(path)


@cache
def backbone():
    """The toy CLIP, built once."""
    return toy_backbone()


def fuzz_import(home, work, chance):
    """A checkpoint of somebody else's code, its names, shapes and values changed: all of it is used, or none."""
    text, visual = backbone().shapes.text_width, backbone().shapes.visual_width
    block = "transformer.resblocks.1.VPT_shallow"
    width = {"ctx": text, f"text_encoder.{block}": text, "image_encoder.VPT": visual, f"image_encoder.{block}": visual}
    names = [*width, "proj.weight", "proj.bias", "compound_prompts_text.0", "compound_prompt_projections.0.weight",
             "meta_net.linear1.weight", "logit_scale", "token_prefix", "bonus", "\x1b", "", "ctx." * 50]  # fmt: skip
    tensors = {}
    for name in [*chance.sample(names, chance.randint(0, 4)), *["ctx"] * chance.randint(0, 1)]:
        shape = (chance.choice((0, 1, 2, 2, 99)), chance.choice((width.get(name, 3), width.get(name, 3), 1)))
        tensors[name] = torch.full(shape[chance.randint(0, 9) == 0 :], chance.choice((1.0, 0.5, 0.0, float("nan"))))
    if chance.random() < 0.3:
        value = chance.choice([*VALUES, np.float64(1), torch.ones(2).long()])
        tensors[chance.choice(("ctx", 3, None, "epoch"))] = value
    path = work.with_suffix(".pt")
    torch.save(chance.choice((tensors, {"state_dict": tensors, "epoch": 3, "optimizer": {"x": {}}}, [tensors])), path)
    if chance.random() < 0.2:
        path.write_bytes(bent(path.read_bytes(), chance))
    with sentence():
        state = import_prompts(path, chance.choice(FORMATS), backbone(), classes=chance.choice((None, ("a", "b"), ())))
        restore(state, backbone(), ("cat", "dog"), "a {}.")


def fuzz_command(home, work, chance):
    """Verbs with words that somebody may mistype: an exit code, and nothing raw on the terminal."""
    shutil.copytree(home / "store", work / "results")
    words = [
        "apd", "mine", "pgd", "embedded", "animals", "tiny-clean", "all", "!apd", "*", "[", "apd(", "pgd(steps=1)", "",
        "folder:.", "folder:", "local:x@y", "./x.pt", "x.py:Y", "-", "--", "-1", "0", "1/255", "1-3", "3-1", "nan",
        "\x1b[31m", "\udcff", "x" * 5000, "results", ".", "/dev/null", "md", "html", "eps", "--json", "--samples",
        "--as-command", "--methods", "--eps", "--seeds", "--out", "--results", "--board", "--limit", "--set", "--help",
        "--format", "--attacks", "--device", "--status", "error", "check", "card", "list", "methods", "cells",
    ]  # fmt: skip
    verb = chance.choice(("list", "show", "report", "compare", "plot", "published", "submit", "verify-submission",
                          "plan", "datasets", "import", "run", "examples", "wrong", "help"))  # fmt: skip
    given = [verb, *chance.choices(words, k=chance.randint(0, 5)), *(["--dry-run"] if verb == "run" else [])]
    out, err, here = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(work)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            assert main(given) in (0, 1, 2, 3), given
    except Exception as error:
        raise AssertionError(f"{given}: {type(error).__name__}: {error}") from error
    finally:
        os.chdir(here)
    assert not set(out.getvalue() + err.getvalue()) & set("\x1b\x07\udcff"), given


@pytest.mark.parametrize("cases", [25, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fuzz", [item for name, item in list(globals().items()) if name.startswith("fuzz_")])
def test_whatever_is_changed_ends_in_the_same_or_in_one_sentence(fuzz, cases, home, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for number in range(cases):
        work = tmp_path / str(number)
        try:
            fuzz(home, work, random.Random(f"{fuzz.__name__} {number}"))
        except Exception as error:
            raise AssertionError(f"case {number} of {fuzz.__name__}: {type(error).__name__}: {error}") from error
        if work.is_dir():
            shutil.rmtree(work)
