"""Checks that no drawing, and nothing that looks like it, is on both sides of a split.

    python -m baselines.embedded.check [--corpus CORPUS]

Reads the shipped sets and the shape index `tests/embedded/shapes.npz`, which holds the 20x20 shape of every
shipped drawing and of every pre-training drawing of the same classes. With `--corpus` the whole pre-training pool
is compared as well, all concepts of it.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apd_bench.core.package_data import package_path
from baselines.embedded import shapes

DATASETS = package_path("embedded", "datasets")
INDEX = Path(__file__).resolve().parents[2] / "tests" / "embedded" / "shapes.npz"
SPLITS = ("train", "val", "test")
# The builder compares with the bare threshold; sums of another machine may round differently.
LIMIT = shapes.THRESHOLD + shapes.ROUNDING
Index = Mapping[str, NDArray[Any]]
log = logging.getLogger(__name__)


def load_index(path: Path = INDEX) -> dict[str, NDArray[Any]]:
    """The arrays `shape`, `category`, `split` and `name` of the shape index."""
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def crossings(index: Index) -> list[str]:
    """One line for every pair of one class that is more similar than the threshold and crosses a split."""
    found = []
    vectors = shapes.unit(index["shape"])
    for name in np.unique(index["category"]):
        rows = np.flatnonzero(index["category"] == name)
        split = index["split"][rows]
        for which in np.unique(split[split != "pretrain"]):
            here, others = rows[split == which], rows[split != which]
            for i, j, cosine in shapes.similar_pairs(vectors[here], vectors[others], LIMIT):
                left, right = here[i], others[j]
                found.append(
                    f"{name}: {index['name'][left]} ({which}) and {index['name'][right]} "
                    f"({index['split'][right]}) have cosine {cosine:.3f}"
                )
    return found


def mismatches(index: Index, folder: Path = DATASETS) -> list[str]:
    """One line for every picture whose source drawing the index does not list in that class and split."""
    listed: dict[str, set[tuple[str, str]]] = {}
    for name, cls, split in zip(index["name"], index["category"], index["split"], strict=True):
        listed.setdefault(str(name), set()).add((str(cls), str(split)))
    found = [f"{name} is listed as {sorted(where)}" for name, where in listed.items() if len(where) > 1]
    for path in sorted(folder.glob("*.npz")):
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(path, allow_pickle=False) as arrays:
            label, split, source = arrays["label"], arrays["split"], arrays["source"]
        for i in range(len(label)):
            drawing = card["sources"][source[i]]
            want = (f"{card['name']}/{card['classes'][label[i]]}", SPLITS[split[i]])
            if want not in listed.get(f"{drawing['set']}/{drawing['icon']}", set()):
                found.append(f"{path.name}, picture {i}: {drawing['set']}/{drawing['icon']} is not listed as {want}")
    return found


def pool_leaks(index: Index, corpus: Path) -> list[str]:
    """One line for every pre-training drawing, of whatever concept, that looks like a shipped drawing."""
    held = shapes.unit(index["shape"][index["split"] != "pretrain"])
    meta = json.loads((corpus / "meta.json").read_text(encoding="utf-8"))
    rows = np.flatnonzero(np.load(corpus / "meta.npz")["split"] == 0)
    vectors = shapes.unit(np.load(corpus / "shapes.npy")[rows])
    names = index["name"][index["split"] != "pretrain"]
    icons = held[~np.char.startswith(names, "fashion-mnist/")]
    return ["/".join(meta["icons"][row]) for row in rows[shapes.near(vectors, icons, LIMIT)]]


def main() -> int:
    """Command line; 1 if anything leaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    index = load_index()
    problems = crossings(index) + mismatches(index)
    if args.corpus:
        problems += pool_leaks(index, args.corpus)
    for line in problems[:50]:
        log.error(line)
    log.info("%d drawings compared, %d problems", len(index["shape"]), len(problems))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
