"""Writes the shipped image sets, and the shape index that the leak check reads.

    python -m baselines.embedded.datasets --corpus CORPUS

Test pictures show test drawings, and so on: a class with few drawings gets further compositions (other colours,
placement, background) of drawings of the same split, never of another one.
"""

import argparse
import hashlib
import io
import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from apd_bench.core.package_data import package_path
from baselines.embedded.catalogue import FASHION_CLASSES, FASHION_TEMPLATE, TEMPLATE, parse_themes
from baselines.embedded.compose import SIZE, compose
from baselines.embedded.corpus import PRETRAIN, TEST, TRAIN, VAL

ROOT = Path(__file__).resolve().parents[2]
DATASETS = package_path("embedded", "datasets")
INDEX = ROOT / "tests" / "embedded" / "shapes.npz"
STRENGTH = 0.5
# Corpus split -> (number in the npz, pictures of a class at least, at most, compositions of one drawing at most).
SHIPPED = {TRAIN: (0, 20, 24, 5), VAL: (1, 4, 6, 2), TEST: (2, 20, 26, 2)}
SPLITS = ("train", "val", "test")
FASHION_SOURCE = {
    "name": "Fashion-MNIST",
    "author": {"name": "Zalando SE", "url": "https://github.com/zalandoresearch/fashion-mnist"},
    "license": {"title": "MIT", "spdx": "MIT", "url": "https://github.com/zalandoresearch/fashion-mnist"},
}
log = logging.getLogger(__name__)


def pick(rows: NDArray[np.int64], split: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows to compose for one class and split: every drawing once, further rounds only up to the wanted number."""
    _, wanted, most, rounds = SHIPPED[split]
    order = rng.permutation(rows)
    if len(order) >= wanted:
        return order[:most]
    return np.tile(order, rounds)[:wanted]


def encode(pictures: torch.Tensor) -> list[bytes]:
    """WebP bytes of [N, 3, 40, 40] pictures in [0, 1]."""
    out = []
    for array in (pictures.permute(0, 2, 3, 1) * 255).round().byte().numpy():
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format="WEBP", quality=90, method=6)
        out.append(buffer.getvalue())
    return out


def write_set(
    name: str, card: dict[str, Any], chosen: list[tuple[int, int, int]], drawings: NDArray[np.uint8],
    mono: NDArray[np.bool_], sources: list[dict[str, str]], seed: int,
) -> None:  # fmt: skip
    """Composes and writes one set; `chosen` holds (row, label, corpus split)."""
    rows = np.array([row for row, _, _ in chosen])
    used, source = np.unique(rows, return_inverse=True)
    rng = torch.Generator().manual_seed(seed)
    pictures = compose(torch.from_numpy(drawings[rows]), torch.from_numpy(mono[rows]), STRENGTH, rng)
    blobs = encode(pictures)
    split = np.array([SHIPPED[s][0] for _, _, s in chosen], np.uint8)
    path = DATASETS / f"{name}.npz"
    np.savez(
        path,
        blob=np.frombuffer(b"".join(blobs), np.uint8),
        offsets=np.cumsum([0, *map(len, blobs)], dtype=np.int64),
        label=np.array([label for _, label, _ in chosen], np.int16),
        split=split,
        source=source.astype(np.int32),
    )
    listed = [sources[row] for row in used]
    licences = sorted({entry["licence"] for entry in listed})
    counts = {key: int(np.sum(split == i)) for i, key in enumerate(SPLITS)}
    full = {"name": name} | card | {
        "counts": counts,
        "image_size": SIZE,
        "npz_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence_summary": ", ".join(f"{x} ({sum(e['licence'] == x for e in listed)})" for x in licences),
        "version": 1,
    }  # fmt: skip
    text = json.dumps(full, indent=1, ensure_ascii=False).rstrip("}\n")
    body = ",\n".join("  " + json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in listed)
    (DATASETS / f"{name}.json").write_text(f'{text},\n "sources": [\n{body}\n ]\n}}\n', encoding="utf-8")
    log.info("%-9s %s, %d drawings, %d kB", name, counts, len(used), path.stat().st_size // 1000)


def theme_sets(corpus: Path, seed: int) -> dict[str, NDArray[Any]]:
    """Writes one set for each theme; the part of the shape index that covers drawings."""
    meta = json.loads((corpus / "meta.json").read_text(encoding="utf-8"))
    arrays = np.load(corpus / "meta.npz")
    label, split, mono = arrays["label"], arrays["split"], arrays["mono"]
    drawings = np.load(corpus / "drawings.npy", mmap_mode="r")
    licence = {name: info["license"]["spdx"] for name, info in meta["collections"].items()}
    sources = [{"set": s, "icon": icon, "licence": licence[s]} for s, icon in meta["icons"]]
    number = {tuple(entry): i for i, entry in enumerate(meta["labels"])}
    index: dict[str, list[Any]] = {"row": [], "category": [], "split": [], "name": []}
    for t, (theme, classes) in enumerate(sorted(parse_themes().items())):
        rng = np.random.default_rng([seed, t])
        chosen = []
        for c, name in enumerate(classes):
            rows = np.flatnonzero(label == number[theme, name])
            for where in (TRAIN, VAL, TEST):
                chosen += [(int(row), c, where) for row in pick(rows[split[rows] == where], where, rng)]
            for row in rows[split[rows] == PRETRAIN]:
                index["row"].append(row)
                index["category"].append(f"{theme}/{name}")
                index["split"].append("pretrain")
        for row, c, where in sorted(set(chosen)):
            index["row"].append(row)
            index["category"].append(f"{theme}/{list(classes)[c]}")
            index["split"].append(SPLITS[SHIPPED[where][0]])
        card = {
            "title": f"Drawings of {theme}" if theme != "science" else "Drawings of science and medicine",
            "classes": list(classes),
            "template": TEMPLATE,
            "provenance": "Icon and emoji drawings of the Iconify collection 2.2.535; see NOTICE.",
            "description": "Drawings from many icon sets, each placed on a random background and, where the drawing "
            "has one colour, painted in a random one. Splits are by drawing.",
        }
        write_set(theme, card, chosen, drawings, mono, sources, seed * 1000 + t)
    rows = np.array(index["row"])
    return {
        "shape": np.load(corpus / "shapes.npy")[rows],
        "category": np.array(index["category"]),
        "split": np.array(index["split"]),
        "name": np.array(["/".join(meta["icons"][row]) for row in rows]),
    }


def fashion_set(corpus: Path, seed: int) -> dict[str, NDArray[Any]]:
    """Writes the set of photographs; its part of the shape index."""
    arrays = np.load(corpus / "fashion-meta.npz")
    label, split, number = arrays["label"], arrays["split"], arrays["number"]
    drawings = np.load(corpus / "fashion-drawings.npy")
    names = [f"{'t10k' if s == TEST else 'train'}-{n}" for s, n in zip(split, number, strict=True)]
    sources = [{"set": "fashion-mnist", "icon": name, "licence": "MIT"} for name in names]
    chosen = [(int(i), int(label[i]), int(split[i])) for i in np.flatnonzero(split != PRETRAIN)]
    card = {
        "title": "Photographs of clothing",
        "classes": list(FASHION_CLASSES),
        "template": FASHION_TEMPLATE,
        "provenance": "Fashion-MNIST (28x28 product photographs), Debian package git20200523; see NOTICE.",
        "description": "Cut-out product photographs, enlarged and placed on a random background. Test pictures are "
        "from the original test file.",
    }
    write_set("fashion", card, chosen, drawings, np.zeros(len(drawings), bool), sources, seed * 1000 + 999)
    where = [("pretrain", "train", "val", "test")[s] for s in split]
    return {
        "shape": np.load(corpus / "fashion-shapes.npy"),
        "category": np.array([f"fashion/{FASHION_CLASSES[c]}" for c in label]),
        "split": np.array(where),
        "name": np.array([f"fashion-mnist/{name}" for name in names]),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    DATASETS.mkdir(parents=True, exist_ok=True)
    INDEX.parent.mkdir(parents=True, exist_ok=True)
    parts = [theme_sets(args.corpus, args.seed), fashion_set(args.corpus, args.seed)]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    with zipfile.ZipFile(INDEX, "w", zipfile.ZIP_LZMA) as archive:  # a sixth smaller than savez_compressed
        for key in ("shape", "category", "split", "name"):
            with archive.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array(file, joined[key], allow_pickle=False)
    total = sum(path.stat().st_size for path in DATASETS.iterdir())
    log.info("sets %.2f MB, shape index %.2f MB", total / 1e6, INDEX.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
