"""What is said about a set that is absent, incomplete, or split otherwise; and what its digest depends on."""

import json
import os
import pickle

import pytest
import torch

from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite, UsageError
from apd_bench.core.identity import counted
from apd_bench.core.registry import DATASETS
from apd_bench.core.specs import DatasetSpec
from apd_bench.data.cards import cards
from apd_bench.data.catalog import benchmark_spec
from apd_bench.data.check import check_set, what_is_missing
from apd_bench.data.places import data_roots
from apd_bench.data.splits import load_dataset
from apd_bench.records.record import json_form
from tests.data import replicas


@pytest.fixture
def eurosat(root, expect):
    card = cards()["eurosat"]
    listed = replicas.write_set(root, card, per_class={"train": 5, "val": 2, "test": 3})
    expect("eurosat", listed)
    return listed


@pytest.fixture
def with_json(root, eurosat):
    return replicas.write_coop_json(root, cards()["eurosat"], eurosat)


def load(name="eurosat", root=None):
    return load_dataset(DATASETS.get(name), image_size=8, root=root)


def test_an_absent_set_says_where_it_was_looked_for(root):
    with pytest.raises(MissingPrerequisite, match=r"EuroSAT is not on this machine.*eurosat/2750 \(coop\)") as caught:
        load()
    assert "APD_BENCH_DATA" in caught.value.hint
    assert isinstance(fresh_digest("derived"), str)


def test_an_absent_split_file_is_named_with_the_alternatives(eurosat):
    with pytest.raises(MissingPrerequisite, match=r"split_zhou_EuroSAT\.json is not") as caught:
        load()
    assert "https://drive.google.com" in caught.value.hint
    assert "eurosat@derived" in caught.value.hint


def test_shards_cannot_serve_a_split_of_file_names(root, with_json):
    card = cards()["eurosat"]
    shards = root.parent / "only_shards"
    items = [(f"{label}", label) for label in range(10)]
    replicas.write_shards(shards, card.shards[0], {"test": items}, dict(items), card.classes)
    shards.joinpath("eurosat").mkdir()
    shards.joinpath("eurosat", card.split_file).write_bytes(with_json.read_bytes())
    with pytest.raises(MissingPrerequisite, match="only webdataset shards are there"):
        load(root=shards)


def test_a_derived_split_is_marked_and_has_coops_proportions(eurosat):
    loaded = load("eurosat@derived")
    assert [len(split) for split in loaded.splits()] == [50, 20, 30]
    assert loaded.origin["derived"] == ["train", "val", "test"]
    assert loaded.spec.name == "eurosat@derived"
    assert len(set().union(*(split.ids for split in loaded.splits()))) == 100


def test_a_derived_split_does_not_depend_on_the_order_of_the_directory(eurosat, monkeypatch):
    before = load("eurosat@derived")
    real = os.scandir

    def backwards(path):
        return sorted(real(path), key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", backwards)
    after = load("eurosat@derived")
    assert [split.ids for split in before.splits()] == [split.ids for split in after.splits()]


def test_a_split_that_a_set_does_not_have_is_refused(root, eurosat):
    with pytest.raises(IncompatibleChoice, match="gives no split"):
        load("eurosat@publisher")
    replicas.write_set(root, cards()["fgvc_aircraft"])
    with pytest.raises(IncompatibleChoice, match="nothing to derive"):
        load("fgvc_aircraft@derived")


def test_missing_images_are_named_or_left_out(root, eurosat, with_json):
    lost = [eurosat["test"][0][0], eurosat["train"][7][0]]
    for path in lost:
        (root / "eurosat/2750" / path).unlink()
    (root / "eurosat/2750" / lost[0]).symlink_to("/nowhere.jpg")
    with pytest.raises(CorruptFile, match="2 sample problems") as caught:
        load()
    assert all(f"{path} is missing" in caught.value.message for path in lost)
    assert "problems='exclude'" in caught.value.hint
    loaded = load("eurosat(problems='exclude')")
    assert len(loaded.test) == 29
    assert len(loaded.origin["excluded"]) == 2
    assert "train has 49 images instead of 50" in loaded.origin["counts"]


def test_wrong_counts_and_a_page_instead_of_json_are_told(with_json, eurosat, root):
    fewer = {**eurosat, "test": eurosat["test"][:-2]}
    replicas.write_coop_json(root, cards()["eurosat"], fewer)
    with pytest.raises(CorruptFile, match="test has 28 images instead of 30"):
        load()
    with_json.write_text("<!DOCTYPE html><html>Google Drive - Virus scan warning</html>")
    with pytest.raises(CorruptFile, match="is not one of CoOp's") as caught:
        load()
    assert "HTML" in caught.value.hint


@pytest.mark.parametrize(("change", "message"), [
    (lambda entry: [entry[0], 11, entry[2]], "labels 0 to 11"),
    (lambda entry: [entry[0], entry[1], "Moon"], "both 'Annual Crop Land' and 'Moon'"),
    (lambda entry: entry[:2], "is not one of CoOp's"),
])  # fmt: skip
def test_a_split_file_that_contradicts_itself(with_json, change, message):
    table = json.loads(with_json.read_text())
    table["train"][0] = change(table["train"][0])
    with_json.write_text(json.dumps(table))
    with pytest.raises(CorruptFile, match=message):
        load()


def test_a_file_that_is_not_an_image_is_named(root, eurosat):
    (root / "eurosat/2750/River/notes.txt").write_text("hello")
    with pytest.raises(CorruptFile, match=r"notes\.txt is not an image"):
        load("eurosat@derived")


@pytest.fixture
def dtd_shards(root):
    card = cards()["dtd"]
    items = [(f"{n}", n % 47) for n in range(94)]
    numbers = {path: int(path) for path, _ in items}
    replicas.write_shards(root, card.shards[0], {"train": items, "test": items}, numbers, card.classes)
    return root / card.shards[0]


@pytest.mark.parametrize(("file", "damage", "error", "message"), [
    ("test/1.tar", lambda path: path.unlink(), MissingPrerequisite, r"1 of the 3 shards .* missing: 1\.tar"),
    ("test/0.tar", lambda path: path.write_bytes(b"<html>" * 99), CorruptFile, r"0\.tar cannot be read"),
    ("classnames.txt", lambda path: replicas.put(path, [f"thing {n}" for n in range(47)]), CorruptFile,
     "not among them: thing 0"),
], ids=["missing", "torn", "other classes"])  # fmt: skip
def test_shards_that_cannot_be_read_are_named(dtd_shards, file, damage, error, message):
    damage(dtd_shards / file)
    with pytest.raises(error, match=message):
        load("dtd@publisher")


def fresh_digest(split="official"):
    return counted(benchmark_spec(cards()["eurosat"], split=split))["digest"]


def test_the_digest_follows_the_split_file_or_the_samples_of_a_derived_split(root, with_json):
    before, derived = fresh_digest(), fresh_digest("derived")
    (root / "eurosat/2750/River/extra.jpg").write_bytes(b"x")
    assert fresh_digest() == before and len({before, derived, fresh_digest("derived")}) == 3
    with_json.write_text(with_json.read_text() + " ")
    assert fresh_digest() != before


def test_the_digest_does_not_depend_on_where_the_data_lies(root, with_json, monkeypatch):
    before = fresh_digest()
    moved = root.parent / "moved"
    root.rename(moved)
    monkeypatch.setenv("APD_BENCH_DATA", f"/nonexistent{os.pathsep}{moved}")
    assert fresh_digest() == before


def test_a_record_knows_the_set_again(with_json):
    spec = benchmark_spec(cards()["eurosat"], problems="exclude")
    stored = json.loads(json.dumps(json_form(spec)))
    assert stored["digest"] == spec.digest
    assert counted(DatasetSpec(**{**stored, "aliases": ()})) == counted(spec)
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301


def test_undecodable_images_can_be_left_out(root, eurosat, with_json):
    broken = eurosat["test"][3][0]
    (root / "eurosat/2750" / broken).write_bytes(b"not an image")
    loaded = load()
    with pytest.raises(CorruptFile, match=broken) as caught:
        loaded.test.images()
    assert f"exclude=['eurosat/test/{broken}']" in caught.value.hint
    by_name = load(f"eurosat(exclude=['eurosat/test/{broken}'])")
    found = load("eurosat(problems='exclude')")
    for fewer in (by_name, found):
        assert len(fewer.test.images()) == 29
        assert fewer.origin["excluded"] == [f"eurosat/test/{broken}"]


def test_an_excluded_sample_must_exist(with_json):
    with pytest.raises(UsageError, match="no sample 'eurosat/test/nothing'"):
        load("eurosat(exclude='eurosat/test/nothing')")


def shards(root, labels):
    card = cards()["cifar10"]
    items = [(str(place), label) for place, label in enumerate(labels)]
    numbers = {str(place): place for place in range(len(labels))}
    replicas.write_shards(root, card.shards[0], {"test": items}, numbers, card.classes)
    return root / card.shards[0]


@pytest.mark.parametrize(("labels", "message", "hint"), [
    ([*range(1, 11)], "labels go from 0 to 9; those in .* go from 1 to 10", "count from 1: subtract 1"),
    ([*range(10), 11], "go from 0 to 11", "different versions"),
    ([*range(10), -1], "go from -1 to 9", "different versions"),
    ([*range(1, 10)], "no image is of class 0", "Restore what is missing"),
    ([*range(9), "cat"], "the label of s0000009 is 'cat', not a number", "Download it again"),
])  # fmt: skip
@pytest.mark.parametrize("problems", ["error", "exclude"])
def test_labels_without_a_name_are_never_left_out(root, labels, message, hint, problems):
    shards(root, labels)
    if problems == "exclude" and "no image" in message:
        loaded = load("cifar10(problems='exclude')")
        assert loaded.origin["classes_without_images"] == ["no image is of class 0 (airplane)"]
        return
    with pytest.raises(CorruptFile, match=message) as caught:
        load("cifar10" if problems == "error" else "cifar10(problems='exclude')")
    assert hint in caught.value.hint and "exclude" not in caught.value.hint


def test_a_set_without_test_images_is_never_ready(root):
    shards(root, [])
    spec = DATASETS.get("cifar10(problems='exclude')")
    finding, missing = check_set(spec, data_roots()), what_is_missing(spec)
    assert finding.state == "incomplete"
    assert "has no test images" in finding.message and "has no test images" in missing


def test_shards_count_with_their_content(root):
    digests = []
    for labels in ([*range(10)], [1, 0, *range(2, 10)], [*range(10)]):
        folder = shards(root, labels)
        digests.append(benchmark_spec(cards()["cifar10"]).digest)
        size = (folder / "test/0.tar").stat().st_size
    assert digests[0] == digests[2] != digests[1] and size == (folder / "test/0.tar").stat().st_size


def test_arrays_count_with_their_content(root):
    card = cards()["cifar10"]
    replicas.write_cifar(root, card, "cifar-10-batches-py")
    before, path = benchmark_spec(card).digest, root / "cifar-10-batches-py/test_batch"
    path.write_bytes(path.read_bytes()[:-40] + b"0" * 40)
    assert benchmark_spec(card).digest != before


def test_flat_validation_images_of_imagenet_say_what_to_do(root):
    val = root / "imagenet/images/val"
    val.mkdir(parents=True)
    for number in range(3):
        (val / f"ILSVRC2012_val_{number:08d}.JPEG").touch()
    with pytest.raises(CorruptFile, match="3 images side by side and none of the 1,000 class folders") as caught:
        load("imagenet")
    assert "valprep.sh" in caught.value.hint and "exclude" not in caught.value.hint


def test_a_set_can_be_read_as_exif_says_and_is_another_set_then(root, with_json):
    plain, turned = DATASETS.get("eurosat"), DATASETS.get("eurosat(orientation='exif')")
    assert turned.options["orientation"] == "exif" and counted(turned) != counted(plain)
    assert torch.equal(load(turned.name).test.images(), load().test.images())
    with pytest.raises(UsageError, match="stored, exif"):
        DATASETS.get("eurosat(orientation='up')")
