"""Tiny but exact replicas of the on-disk layouts of the benchmark sets, in their real file formats.

Every builder writes below a data root and returns what was written: split -> [(path relative to the images, label)].
Image number i is one colour, `colour(i)`, so that a loaded image says which file it came from.
"""

import io
import json
import pickle
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

COOP_COUNTS = {"train": 2, "val": 1, "test": 1}  # images a class


def colour(number):
    return (number % 251, number // 251 % 251, 128)


@cache
def encoded(number, kind="PNG", size=(12, 10)):
    """One-colour images; PNG content under a .jpg name decodes exactly and is fast."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour(number)).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def write_images(base, paths):
    for number, path in enumerate(paths):
        write(base / path, encoded(number))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def below_class(card, label, stem):
    return f"{(list(card.folders) or card.classes)[label].replace(' ', '_')}/{stem}.jpg"


def sun_folder(card, label):
    words = card.classes[label].split()
    if words[0] in ("indoor", "outdoor", "interior", "exterior") and len(words) > 1:
        rest = "_".join(words[1:])
        return f"{rest[0]}/{rest}/{words[0]}"
    return f"{words[0][0]}/{'_'.join(words)}"


def ucf_action(card, label):
    return card.classes[label].replace(" ", "")


# The file of an image of each set, from its label and its number within the class, relative to the folder with images.
NAMES = {
    "caltech101": lambda card, label, number: below_class(card, label, f"image_{number + 1:04d}"),
    "oxford_pets": lambda card, label, number: (
        f"{card.classes[label].replace(' ', '_').capitalize()}_{number + 1}.jpg"
    ),
    "stanford_cars": lambda card, label, number: f"{label * 10 + number + 1:05d}.jpg",
    "oxford_flowers": lambda card, label, number: f"image_{label * 10 + number + 1:05d}.jpg",
    "food101": lambda card, label, number: below_class(card, label, number + 1),
    "fgvc_aircraft": lambda card, label, number: f"{label * 10 + number + 1:07d}.jpg",
    "sun397": lambda card, label, number: f"{sun_folder(card, label)}/sun_{number:06d}.jpg",
    "dtd": lambda card, label, number: f"{card.classes[label]}/{card.classes[label]}_{number:04d}.jpg",
    "eurosat": lambda card, label, number: below_class(card, label, f"pic_{number + 1}"),
    "ucf101": lambda card, label, number: (
        f"{card.classes[label].replace(' ', '_')}/v_{ucf_action(card, label)}_g{number + 1:02d}_c01.jpg"
    ),
}


def layout_home(card, layout):
    home = next(home for home in card.homes if home.layout == layout)
    return home.folder, home.images


def write_set(root, card, layout="coop", per_class=None):
    """The images of a set in a layout, and how they are to be split (not written to disk)."""
    counts = per_class or COOP_COUNTS
    folder, images = layout_home(card, layout)
    order = [name for name, count in counts.items() for _ in range(count)]
    listed = {name: [] for name in counts}
    for label in range(len(card.classes)):
        for number, name in enumerate(order):
            prefix = ("cars_test/" if name == "test" else "cars_train/") if card.name == "stanford_cars" else ""
            listed[name].append((prefix + NAMES[card.name](card, label, number), label))
    write_images(root / folder / images, (path for items in listed.values() for path, _ in items))
    return listed


def shuffled(listed):
    """The same lists in an order that is neither by label nor by name, as CoOp's files have it."""
    return {
        name: [items[place] for place in np.random.default_rng(len(items)).permutation(len(items))]
        for name, items in listed.items()
    }


def write_coop_json(root, card, listed, folder=None):
    blank = "_" if card.name in ("oxford_pets", "caltech101", "ucf101") else " "  # as the publisher has them
    names = [name.replace(" ", blank) for name in card.classes]
    path = root / (folder or card.homes[0].folder) / card.split_file
    table = {split: [[file, label, names[label]] for file, label in items] for split, items in listed.items()}
    write(path, json.dumps(table).encode())
    return path


def write_publisher_lists(root, card, listed, layout="coop"):  # noqa: C901  one branch a set
    """The publisher's own split files: train and val are its training images unless it separates them."""
    folder = root / layout_home(card, layout)[0]
    trainval = listed["train"] + listed["val"]
    if card.name == "oxford_pets":
        for name, items in (("trainval", trainval), ("test", listed["test"])):
            lines = [f"{Path(path).stem} {label + 1} 1 1" for path, label in items]
            put(folder / f"annotations/{name}.txt", lines)
    elif card.name == "stanford_cars":
        names = [f"{name.split(' ', 1)[1]} {name.split(' ', 1)[0]}" for name in card.classes]
        matlab(folder / "devkit/cars_meta.mat", class_names=cells(names))
        files = {"devkit/cars_train_annos.mat": trainval, "cars_test_annos_withlabels.mat": listed["test"]}
        for path, items in files.items():
            rows = np.zeros((1, len(items)), dtype=[("bbox_x1", object), ("class", object), ("fname", object)])
            for column, (file, label) in enumerate(items):
                rows[0, column] = (np.uint8(1), np.uint8(label + 1), Path(file).name)
            matlab(folder / path, annotations=rows)
    elif card.name == "oxford_flowers":
        labels = np.ones((1, 10 * len(card.classes)), np.uint8)
        for path, label in (item for items in listed.values() for item in items):
            labels[0, image_number(path) - 1] = label + 1
        matlab(folder / "imagelabels.mat", labels=labels)
        ids = {
            key: np.array([[image_number(path) for path, _ in listed[split]]], np.uint16)
            for key, split in (("trnid", "train"), ("valid", "val"), ("tstid", "test"))
        }
        matlab(folder / "setid.mat", **ids)
        put(folder / "cat_to_name.json", [json.dumps({str(n + 1): name for n, name in enumerate(card.classes)})])
    elif card.name == "food101":
        put(folder / "meta/classes.txt", [name.replace(" ", "_") for name in card.classes])
        for name, items in (("train", trainval), ("test", listed["test"])):
            put(folder / f"meta/{name}.txt", [path.removesuffix(".jpg") for path, _ in items])
    elif card.name == "fgvc_aircraft":
        put(folder / "variants.txt", card.classes)
        for name, items in listed.items():
            lines = [f"{Path(path).stem} {card.classes[label]}" for path, label in items]
            put(folder / f"images_variant_{name}.txt", lines)
    elif card.name == "sun397":
        put(folder / "ClassName.txt", [f"/{sun_folder(card, label)}" for label in range(len(card.classes))])
        put(folder / "Training_01.txt", [f"/{path}" for path, _ in trainval])
        put(folder / "Testing_01.txt", [f"/{path}" for path, _ in listed["test"]])
    elif card.name == "dtd":
        for name, items in listed.items():
            put(folder / f"labels/{name}1.txt", [path for path, _ in items])
    elif card.name == "ucf101":
        lines = [f"{label + 1} {ucf_action(card, label)}" for label in range(len(card.classes))]
        put(folder / "ucfTrainTestlist/classInd.txt", lines)
        for name, items in (("trainlist01", trainval), ("testlist01", listed["test"])):
            lines = [f"{ucf_action(card, label)}/{Path(path).stem}.avi {label + 1}" for path, label in items]
            lines = lines if name == "trainlist01" else [line.split()[0] for line in lines]
            put(folder / f"ucfTrainTestlist/{name}.txt", lines)


def write_wordnet(root, card, layout="coop", per_class=2):
    """ImageNet and its test-only relatives: folders named by WordNet id (numbers for ImageNetV2), one file shared."""
    folder, images = layout_home(card, layout)
    base = root / folder / images
    listed = {}
    parts = {"train": "train/", "test": "val/"} if card.name == "imagenet" else {"test": ""}
    for split, prefix in parts.items():
        listed[split] = []
        for label, wnid in enumerate(card.wnids):
            name = str(label) if card.name == "imagenetv2" else wnid
            for number in range(per_class if split == "train" or card.name != "imagenet" else 1):
                stem = f"ILSVRC2012_val_{label + 1:08d}" if prefix == "val/" else f"{wnid}_{number}"
                listed[split].append((f"{prefix}{name}/{stem}.JPEG", label))
    for path, _ in (item for items in listed.values() for item in items):
        write(base / path, encoded(7))
    return listed


def write_shards(root, folder, splits, numbers, classes, per_shard=40):
    """clip-benchmark/wds_*: the images `numbers[path]` as lossless WebP with .cls files, in the order of `splits`."""
    put(root / folder / "classnames.txt", classes)
    put(root / folder / "zeroshot_classification_templates.txt", ["a photo of a {c}."])
    for split, items in splits.items():
        shards = [items[begin : begin + per_shard] for begin in range(0, len(items), per_shard)]
        put(root / folder / split / "nshards.txt", [str(len(shards))])
        index = 0
        for number, shard in enumerate(shards):
            with tarfile.open(root / folder / split / f"{number}.tar", "w") as archive:
                for path, label in shard:
                    member(archive, f"s{index:07d}.webp", encoded(numbers[path], "WEBP"))
                    member(archive, f"s{index:07d}.cls", str(label).encode())
                    member(archive, f"s{index:07d}.json", b"{}")  # what other writers put beside
                    index += 1


def write_cifar(root, card, folder, per_batch=40):
    """The python version: batches pickled by Python 2 (protocol 2, byte-string keys). Returns all training images."""
    fine = len(card.classes) == 100
    base = root / folder
    stems = [*(["train"] if fine else [f"data_batch_{n}" for n in range(1, 6)]), "test" if fine else "test_batch"]
    batches = []
    for seed, stem in enumerate(stems):
        data = np.random.default_rng(seed).integers(0, 256, (500 if fine else per_batch, 3072), np.uint8)
        labels = [place % len(card.classes) for place in range(len(data))]
        key = b"fine_labels" if fine else b"labels"
        table = {b"data": data, key: labels, b"filenames": [b"x.png"] * len(data), b"batch_label": b"batch"}
        write(base / stem, pickle.dumps(table, protocol=2))
        batches.append(data)
    names = [name.replace(" ", "_").encode() for name in card.classes]
    meta = {b"fine_label_names": names} if fine else {b"label_names": names, b"num_vis": 3072}
    base.joinpath("meta" if fine else "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return np.concatenate(batches[:-1]).reshape(-1, 3, 32, 32)


def write_cifar_binary(root, card, python_folder, folder):
    """The binary version of the same images: label byte(s), then 3,072 pixels."""
    fine = len(card.classes) == 100
    for path in sorted(python_folder.iterdir()):
        if "meta" in path.name:
            continue
        table = pickle.loads(path.read_bytes())  # noqa: S301
        labels = np.array(table[b"fine_labels" if fine else b"labels"], np.uint8)[:, None]
        columns = [np.zeros_like(labels), labels] if fine else [labels]
        write(root / folder / f"{path.name}.bin", np.hstack([*columns, table[b"data"]]).tobytes())
    names = "fine_label_names.txt" if fine else "batches.meta.txt"
    put(root / folder / names, [name.replace(" ", "_") for name in card.classes])


def write_stl(root, card, folder="stl10_binary"):
    """stl10_binary: column-major uint8 images of 96 px, labels from 1. Returns the images as [N, 3, H, W]."""
    images = {}
    for seed, (stem, per_class) in enumerate((("train", 5), ("test", 2))):
        labels = np.tile(np.arange(1, 11), per_class).astype(np.uint8)
        images[stem] = np.random.default_rng(seed).integers(0, 256, (len(labels), 3, 96, 96), np.uint8)
        write(root / folder / f"{stem}_X.bin", images[stem].transpose(0, 1, 3, 2).tobytes())
        write(root / folder / f"{stem}_y.bin", labels.tobytes())
    put(root / folder / "class_names.txt", card.classes)
    return images


def put(path, lines):
    write(path, "".join(f"{line}\n" for line in lines).encode())


def image_number(path):
    return int(Path(path).stem.rpartition("_")[2])


def cells(values):
    row = np.empty((1, len(values)), object)
    row[0] = values
    return row


def matlab(path, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)


def member(archive, name, content):
    header = tarfile.TarInfo(name)
    header.size = len(content)
    archive.addfile(header, io.BytesIO(content))
