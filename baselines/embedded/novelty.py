"""Zero-shot accuracy on test drawings by how much they look like a pre-training drawing of their class.

    python -m baselines.embedded.novelty [--weights FILE]

Drawings only (not `fashion`), all sets together; similarity is the largest shape cosine with the class's pre-training
drawings, which the leak rule keeps below 0.93.
"""

import argparse
import itertools
import json
import logging
from pathlib import Path

import numpy as np
import torch

from baselines.embedded import shapes
from baselines.embedded.check import load_index
from baselines.embedded.datasets import DATASETS
from baselines.embedded.gate import logits, test_split
from baselines.embedded.model import MODELS, load_half, text_features, tokenizer

EDGES = (-1.0, 0.5, 0.6, 0.7, 0.8, 1.0)
log = logging.getLogger(__name__)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=MODELS / "tiny-clean.safetensors")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    index = load_index()
    vectors = shapes.unit(index["shape"])
    row_of = {str(name): i for i, name in enumerate(index["name"])}
    model, encode = load_half(args.weights), tokenizer()
    similarity, correct = [], []
    for path in sorted(DATASETS.glob("*.npz")):
        if path.stem == "fashion":
            continue
        pictures, labels, prompts = test_split(path.stem)
        with torch.no_grad():
            hit = logits(model, pictures, text_features(model, encode(prompts))).argmax(1) == labels
        correct += hit.tolist()
        sources = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sources"]
        with np.load(path, allow_pickle=False) as arrays:
            shown = arrays["source"][arrays["split"] == 2]
        for source in shown:
            row = row_of[f"{sources[source]['set']}/{sources[source]['icon']}"]
            pool = (index["category"] == index["category"][row]) & (index["split"] == "pretrain")
            similarity.append(float((vectors[pool] @ vectors[row]).max()))
    right, cosine = np.array(correct), np.array(similarity)
    for low, high in itertools.pairwise(EDGES):
        mine = (cosine >= low) & (cosine < high)
        log.info("cosine %4.1f to %3.1f: %5.1f %% of %d", low, high, 100 * right[mine].mean(), mine.sum())


if __name__ == "__main__":
    main()
