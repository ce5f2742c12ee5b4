"""Every set's replica loads with the right names, counts, splits and few-shot draws, and the layouts agree."""

import pytest

from apd_bench.core.errors import CorruptFile
from apd_bench.core.registry import DATASETS
from apd_bench.data.cards import cards
from apd_bench.data.check import check_set
from apd_bench.data.protocols import few_shot_dataset, limit_split
from apd_bench.data.splits import load_dataset
from tests.data import replicas

WITH_JSON = [name for name, card in cards().items() if card.split_file]
WITH_LISTS = [name for name in WITH_JSON if cards()[name].publisher_counts]
WORDNET = ["imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]


def load(name, root=None):
    return load_dataset(DATASETS.get(name), image_size=8, root=root)


def written(split):
    assert split is not None
    keys = [name.split("/", 2)[2] for name in split.ids]
    return list(zip(keys, split.labels.tolist(), strict=True))


def numbering(listed):
    return {path: number for number, path in enumerate(path for items in listed.values() for path, _ in items)}


@pytest.mark.parametrize("name", WITH_JSON)
def test_the_layout_of_coop_with_its_split_file(name, root, expect):
    card = cards()[name]
    listed = replicas.write_set(root, card)
    in_json = replicas.shuffled(listed)
    replicas.write_coop_json(root, card, in_json)
    expect(name, in_json)
    loaded = load(name)
    assert loaded.classes == card.classes
    for split in ("train", "val", "test"):
        assert written(loaded.split(split)) == in_json[split]
    seen, numbers = loaded.val.images()[:, :, 4, 4].tolist(), numbering(listed)
    assert seen == [list(replicas.colour(numbers[key])) for key, _ in written(loaded.val)]
    assert loaded.origin == {"layout": "coop", "split": card.split_file, "derived": []}
    drawn = few_shot_dataset(loaded, shots=2, seed=1)
    assert len(drawn.split("train")) == 2 * len(card.classes)
    assert len(drawn.split("val")) == len(card.classes)


@pytest.mark.parametrize("name", WITH_LISTS)
def test_the_publishers_lists(name, root, expect):
    card = cards()[name]
    listed = replicas.write_set(root, card)
    replicas.write_publisher_lists(root, card, listed)
    expect(name, listed)
    loaded = load(f"{name}@publisher")
    assert loaded.classes == card.classes
    assert sorted(written(loaded.test)) == sorted(listed["test"])
    both = sorted(written(loaded.train) + written(loaded.val))
    assert both == sorted(listed["train"] + listed["val"])
    if "trainval" in card.publisher_counts:
        assert loaded.origin["derived"] == ["train", "val"]
        assert len(loaded.split("val")) == round(3 * 0.2) * len(card.classes)
    else:
        assert loaded.origin["derived"] == []
        assert written(loaded.val) == listed["val"]


def test_aircraft_needs_no_split_file(root, expect):
    for layout in ("coop", "torchvision"):
        card = cards()["fgvc_aircraft"]
        listed = replicas.write_set(root / layout, card, layout)
        replicas.write_publisher_lists(root / layout, card, listed, layout)
        expect("fgvc_aircraft", listed)
        loaded = load("aircraft", root / layout)
        assert loaded.origin["layout"] == layout
        assert {split: written(loaded.split(split)) for split in listed} == listed


@pytest.mark.parametrize("name", [n for n in WITH_JSON if any(h.layout == "torchvision" for h in cards()[n].homes)])
def test_both_layouts_with_one_split_file_agree(name, root, expect):
    card = cards()[name]
    loaded = {}
    for layout in ("coop", "torchvision"):
        place = root / layout
        listed = replicas.write_set(place, card, layout)
        folder = replicas.layout_home(card, layout)[0]
        replicas.write_coop_json(place, card, replicas.shuffled(listed), folder)
        expect(name, listed)
        loaded[layout] = load(name, place)
    first, second = loaded["coop"], loaded["torchvision"]
    assert second.origin["layout"] == "torchvision"
    assert first.classes == second.classes
    for one, other in zip(first.splits(), second.splits(), strict=True):
        assert one.ids == other.ids and one.labels.equal(other.labels)
    assert first.split("val").images().equal(second.split("val").images())


@pytest.mark.parametrize("name", ["oxford_pets", "stanford_cars", "food101", "sun397", "dtd", "oxford_flowers"])
def test_shards_agree_with_the_publishers_files(name, root, expect):
    """The public copies name classes their own way: year last, capitals, indoor last, underscores."""
    card = cards()[name]
    listed = replicas.write_set(root / "files", card)
    replicas.write_publisher_lists(root / "files", card, listed)
    expect(name, listed)
    spelled = [" ".join(reversed(c.split())).title() if name == "sun397" else c.title() for c in card.classes]
    if name == "stanford_cars":
        spelled = [f"{c.split(' ', 1)[1]} {c.split(' ', 1)[0]}" for c in card.classes]
    if name == "oxford_flowers":
        spelled[92], spelled[59] = "air plant", "pink and yellow dahlia"
    last = len(card.classes) - 1 if name == "dtd" else 0  # its labels are in another order
    spelled = spelled[::-1] if last else spelled
    in_shards = {
        split: [(path, abs(last - label)) for path, label in items]
        for split, items in (("train", listed["train"] + listed["val"]), ("test", listed["test"]))
    }
    replicas.write_shards(root / "shards", card.shards[0], in_shards, numbering(listed), spelled)
    files, shards = load(f"{name}@publisher", root / "files"), load(f"{name}@publisher", root / "shards")
    assert shards.origin["layout"] == "webdataset"
    assert shards.classes == files.classes
    assert len(shards.split("train")) + len(shards.split("val")) == len(listed["train"]) + len(listed["val"])
    by_image = sorted(zip(files.test.images().flatten(1).tolist(), files.test.labels.tolist(), strict=True))
    assert sorted(zip(shards.test.images().flatten(1).tolist(), shards.test.labels.tolist(), strict=True)) == by_image


@pytest.mark.parametrize("name", ["caltech101", "eurosat"])
def test_shards_whose_labels_the_card_states(name, root):
    """Those of EuroSAT are in another order; those of Caltech101 have background and easy faces, which are left out."""
    card = cards()[name]
    items = [(f"{label}.jpg", label) for label in range(len(card.shard_classes))]
    names = [name or "something else" for name in card.shard_classes]
    replicas.write_shards(root, card.shards[0], {"train": items, "test": items}, dict(items), names)
    loaded = load(f"{name}@publisher")
    assert loaded.classes == card.classes and len(loaded.test) == len(card.classes)
    for label, red in zip(loaded.test.labels.tolist(), loaded.test.images()[:, 0, 0, 0].tolist(), strict=True):
        assert card.shard_classes[red] == card.classes[label]


def test_imagenet_in_both_layouts(root, expect):
    card = cards()["imagenet"]
    for layout in ("coop", "torchvision"):
        listed = replicas.write_wordnet(root / layout, card, layout, per_class=1)
        expect("imagenet", listed)
        loaded = load("imagenet", root / layout)
        assert written(loaded.train) == listed["train"] and written(loaded.test) == listed["test"]
        assert loaded.val is None
        assert loaded.classes[0] == "tench" and len(loaded.classes) == 1000


def test_imagenet_without_training_images_can_be_tested(root, expect):
    card = cards()["imagenet"]
    listed = replicas.write_wordnet(root, card, per_class=0)
    expect("imagenet", {"train": [("x", 0)] * 1000, "test": listed["test"]})
    ids = root / "imagenet/imagenet_test_image_ids.txt"
    ids.write_text("".join(f"{path}\n" for path, _ in listed["test"][5:25]))
    assert not (root / "imagenet/images/train").exists()
    loaded = load("imagenet")
    assert loaded.train is None
    assert loaded.origin["no_train"].endswith("imagenet/images/train")
    assert loaded.test.published[20] == loaded.test.ids[5:25]
    assert limit_split(loaded.test, 20).ids == loaded.test.ids[5:25]
    assert loaded.origin["published_ids"] == ids.name
    ids.write_text(ids.read_text() + "val/n01440764/ILSVRC2012_val_99999999.JPEG\n")
    with pytest.raises(CorruptFile, match=r"1 of its 21 names are no test image here: \['ILSVRC2012_val_99999999"):
        load("imagenet")
    assert len(load("imagenet(problems='exclude')").test.published[20]) == 20
    ids.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptFile, match="it is not text"):
        load("imagenet")
    assert check_set(DATASETS.get("imagenet"), (root,)).message.startswith("no training images")
    ids.unlink()
    assert "imagenet_test_image_ids.txt" in check_set(DATASETS.get("imagenet"), (root,)).message


@pytest.mark.parametrize("name", WORDNET)
def test_the_shifted_relatives_of_imagenet(name, root, expect):
    card = cards()[name]
    listed = replicas.write_wordnet(root, card, per_class=1)
    base = root / replicas.layout_home(card, "coop")[0] / replicas.layout_home(card, "coop")[1]
    base.joinpath("README.txt").write_text("not an image")
    expect(name, listed)
    loaded = load(name)
    assert written(loaded.test) == listed["test"]
    assert (loaded.train, loaded.val) == (None, None)
    assert loaded.classes == card.classes


def test_coops_classnames_file_wins(root, expect):
    card = cards()["imagenet_a"]
    expect("imagenet_a", replicas.write_wordnet(root, card, per_class=1))
    lines = [f"{wnid} my {name}" for wnid, name in zip(card.wnids, card.classes, strict=True)]
    replicas.put(root / "imagenet-adversarial/classnames.txt", lines)
    assert load("imagenet_a").classes[3] == f"my {card.classes[3]}"


@pytest.mark.parametrize("name", [n for n, card in cards().items() if card.shards and not card.split_file])
def test_shards_of_a_set_without_split_file_serve_the_official_one(name, root, expect):
    card = cards()[name]
    items = [(f"{label}", label) for label in range(len(card.classes))]
    splits = {"train": items, "test": items[::-1]} if "train" in card.counts else {"test": items[::-1]}
    spelled = [c.replace(" ", "_") for c in card.classes] if name.startswith("cifar") else card.classes
    replicas.write_shards(root, card.shards[0], splits, dict(items), spelled, 400)
    expect(name, {**dict.fromkeys(card.counts, items), "test": items})
    loaded = load(name)
    assert (loaded.origin["layout"], loaded.classes) == ("webdataset", card.classes)
    assert loaded.test.labels.tolist() == [label for _, label in items[::-1]]
    last = loaded.test.images([0, -1])[:, :, 4, 4].tolist()
    assert last == [list(replicas.colour(len(items) - 1)), list(replicas.colour(0))]
    if "train" in card.counts:
        fitted = len(loaded.split("train")) + (len(loaded.val) if loaded.val is not None else 0)
        assert fitted == len(items)


def test_a_line_that_names_no_sample_is_shown(root):
    card = cards()["food101"]
    replicas.write_publisher_lists(root, card, replicas.write_set(root, card))
    with (root / "food-101/meta/test.txt").open("a") as stream:
        stream.write("apple_cake/1\n")
    with pytest.raises(CorruptFile, match=r"meta/test\.txt has a line that names no sample: 'apple_cake/1'"):
        load("food101@publisher")
