"""Writes NOTICE: who drew what, under which licence.

    python -m baselines.embedded.notice --sources DOWNLOADS --corpus CORPUS

The facts are kept in `provenance.json` beside NOTICE, so that a test can tell whether NOTICE is up to date.
"""

import argparse
import collections
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from apd_bench.core.package_data import package_path
from baselines.embedded.corpus import PRETRAIN
from baselines.embedded.datasets import DATASETS, FASHION_SOURCE
from baselines.embedded.sources import Iconify

EMBEDDED = package_path("embedded")
HEADER = """\
NOTICE for the embedded instance of apd-bench

The image sets in datasets/ contain small pictures composed from the drawings and photographs of the works listed
under "Shipped pictures": each was drawn at 48x48 pixels, scaled, turned, mirrored, shifted, put on a random
background, and recoloured where it has one colour. The weights in models/ were trained on pictures composed in the
same way from these works and from those listed under "Used for training only". No author endorses this use.
The source of every picture is recorded in datasets/*.json.

The merges in models/bpe_4096.txt.gz are the first 3,582 of open_clip's tokenizer file (MIT, OpenAI and the
open_clip authors, https://github.com/mlfoundations/open_clip).

Licence texts: MIT https://opensource.org/license/mit, Apache-2.0 https://www.apache.org/licenses/LICENSE-2.0,
ISC https://opensource.org/license/isc-license-txt, BSD-3-Clause https://opensource.org/license/bsd-3-clause,
CC0-1.0 https://creativecommons.org/publicdomain/zero/1.0/, Unlicense https://unlicense.org/,
CC-BY-4.0 https://creativecommons.org/licenses/by/4.0/, CC-BY-3.0 https://creativecommons.org/licenses/by/3.0/.
"""
log = logging.getLogger(__name__)


def entry(info: dict[str, Any]) -> dict[str, str]:
    """Title, author, licence and addresses of one icon set."""
    author, licence = info["author"], info["license"]
    return {
        "title": info["name"],
        "author": author["name"],
        "url": author.get("url", ""),
        "licence": licence["spdx"],
        "licence_url": licence.get("url", ""),
    }


def render(provenance: dict[str, Any]) -> str:
    """The text of NOTICE."""
    parts = [HEADER]
    for heading, key in (("Shipped pictures", "shipped"), ("Used for training only", "training_only")):
        parts.append(f"{heading}\n{'=' * len(heading)}\n")
        for name, one in sorted(provenance[key].items()):
            line = f"{one['title']} ({name}), {one['author']}"
            line += f", {one['url']}" if one["url"] else ""
            line += f"\n    {one['licence']}"
            line += f", {one['licence_url']}" if one["licence_url"] else ""
            parts.append(line)
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    known = Iconify(args.sources).collections | {"fashion-mnist": FASHION_SOURCE}
    shipped: collections.Counter[str] = collections.Counter()
    for path in DATASETS.glob("*.json"):
        shipped.update(source["set"] for source in json.loads(path.read_text(encoding="utf-8"))["sources"])
    meta = json.loads((args.corpus / "meta.json").read_text(encoding="utf-8"))
    split = np.load(args.corpus / "meta.npz")["split"]
    trained = {meta["icons"][row][0] for row in np.flatnonzero(split == PRETRAIN)} | {"fashion-mnist"}
    provenance = {
        "sources": {"iconify": "2.2.535", "dataset-fashion-mnist": "0.0~git20200523.55506a9-1"},
        "shipped": {name: entry(known[name]) for name in sorted(shipped)},
        "training_only": {name: entry(known[name]) for name in sorted(trained - set(shipped))},
    }
    text = json.dumps(provenance, indent=1, ensure_ascii=False) + "\n"
    (EMBEDDED / "provenance.json").write_text(text, encoding="utf-8")
    (EMBEDDED / "NOTICE").write_text(render(provenance), encoding="utf-8")
    log.info("%d shipped sources, %d for training only", len(shipped), len(trained - set(shipped)))


if __name__ == "__main__":
    main()
