"""Copies the weights of a run to their place in the package and writes the card beside them.

    python -m baselines.embedded.export --run RUN --name tiny-clean

RUN holds `weights.safetensors` and `run.json`, as the training scripts write them.
"""

import argparse
import hashlib
import json
import logging
import shutil
from pathlib import Path

from safetensors.torch import load_file

from baselines.embedded.model import CONFIG, MEAN, MODELS, STD
from baselines.embedded.sources import FASHION, ICONIFY

LICENCE = (
    "Apache-2.0 for the weights; trained on drawings and photographs under MIT, Apache-2.0, ISC, BSD-3-Clause, "
    "CC0-1.0, Unlicense, CC-BY-4.0 and CC-BY-3.0, listed in NOTICE"
)
log = logging.getLogger(__name__)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--name", required=True, choices=("tiny-clean", "tiny-robust"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    target = MODELS / f"{args.name}.safetensors"
    shutil.copyfile(args.run / "weights.safetensors", target)
    run = json.loads((args.run / "run.json").read_text(encoding="utf-8"))
    size = CONFIG["vision_cfg"]["image_size"]
    card = {
        "name": args.name,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "format": "fp16 safetensors, state dict of open_clip's CLIP built from tiny.json",
        "parameters": sum(tensor.numel() for tensor in load_file(str(target)).values()),
        **run,
        "sources": {
            name: {"file": file, "sha256": digest}
            for name, (file, digest) in (("iconify", ICONIFY), ("fashion-mnist", FASHION))
        },
        "preprocess_cfg": {
            "size": size,
            "mode": "RGB",
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
        "licence": LICENCE,
        "version": 1,
    }
    (MODELS / f"{args.name}.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    log.info("%s: %s, %d samples", target.name, card["sha256"][:12], run["samples_seen"])


if __name__ == "__main__":
    main()
