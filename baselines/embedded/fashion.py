"""Prepares Fashion-MNIST: cut-out product photographs, dealt to the splits without near-duplicates across them.

    python -m baselines.embedded.fashion --sources DOWNLOADS --out CORPUS

Test images come from the original test file, all others from the original train file. Writes `fashion-drawings.npy`
(premultiplied RGBA, 48x48), `fashion-shapes.npy` (20x20 grey) and `fashion-meta.npz`.
"""

import argparse
import gzip
import io
import logging
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from baselines.embedded import shapes
from baselines.embedded.catalogue import FASHION_CLASSES
from baselines.embedded.corpus import PRETRAIN, SIZE, TEST, TRAIN, VAL
from baselines.embedded.sources import FASHION, verify

PER_CLASS = {TEST: 40, TRAIN: 20, VAL: 5, PRETRAIN: 600}
FOLDER = "./usr/share/datasets/fashion-mnist/"
log = logging.getLogger(__name__)
Bytes = NDArray[np.uint8]


def read_package(path: Path) -> dict[str, Bytes]:
    """The four arrays of the Debian package, by file name."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], check=True, capture_output=True).stdout
    arrays = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for name in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
            kind = "idx3" if name.endswith("images") else "idx1"
            handle = archive.extractfile(f"{FOLDER}{name}-{kind}-ubyte.gz")
            if handle is None:
                raise ValueError(f"{path} has no {name}")
            raw = gzip.decompress(handle.read())
            images = np.frombuffer(raw, np.uint8, offset=16 if kind == "idx3" else 8)
            arrays[name] = images.reshape(-1, 28, 28) if kind == "idx3" else images
    return arrays


def cut_out(grey: Bytes) -> Bytes:
    """Premultiplied RGBA of one 28x28 photograph, its black surroundings made transparent."""
    mask = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(grey > 12, 2), iterations=1))[2:-2, 2:-2]
    planes = [Image.fromarray(plane).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
              for plane in (np.where(mask, grey, 0).astype(np.uint8), mask.astype(np.uint8) * 255)]  # fmt: skip
    value, alpha = (np.asarray(plane) for plane in planes)
    value = np.minimum(value, alpha)
    return np.stack([value, value, value, alpha], 2)


def deal_class(pool: Bytes, tests: Bytes, rng: np.random.Generator) -> list[tuple[int, bool, int]]:
    """(row, from the test file, split) of the chosen images of one class, chosen greedily in random order."""
    pool_vectors, test_vectors = shapes.unit(shapes.descriptors(pool)), shapes.unit(shapes.descriptors(tests))
    chosen = [(int(i), True, TEST) for i in rng.permutation(len(tests))[: PER_CLASS[TEST]]]
    blocked = shapes.near(pool_vectors, test_vectors[[i for i, _, _ in chosen]])
    for split in (TRAIN, VAL, PRETRAIN):
        free = np.flatnonzero(~blocked)
        picks = rng.permutation(free)[: PER_CLASS[split]]
        chosen += [(int(i), False, split) for i in picks]
        blocked |= shapes.near(pool_vectors, pool_vectors[picks])
        blocked[picks] = True
    return chosen


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arrays = read_package(verify(args.sources, FASHION))
    rng = np.random.default_rng(args.seed)
    images, label, split, number = [], [], [], []
    for c, name in enumerate(FASHION_CLASSES):
        rows = np.flatnonzero(arrays["train-labels"] == c)
        test_rows = np.flatnonzero(arrays["t10k-labels"] == c)
        chosen = deal_class(arrays["train-images"][rows], arrays["t10k-images"][test_rows], rng)
        for row, is_test, where in chosen:
            source = test_rows[row] if is_test else rows[row]
            images.append(arrays["t10k-images" if is_test else "train-images"][source])
            label.append(c)
            split.append(where)
            number.append(int(source))
        log.info("%-12s %s", name, np.bincount([where for _, _, where in chosen], minlength=4))
    grey = np.stack(images)
    np.save(args.out / "fashion-drawings.npy", np.stack([cut_out(image) for image in grey]))
    np.save(args.out / "fashion-shapes.npy", shapes.descriptors(grey))
    np.savez(args.out / "fashion-meta.npz", label=np.array(label, np.int32), split=np.array(split, np.int8),
             number=np.array(number, np.int32))  # fmt: skip


if __name__ == "__main__":
    main()
