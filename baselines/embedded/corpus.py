"""Builds the corpus: renders every wanted drawing once and deals the drawings of each class to the splits.

    python -m baselines.embedded.corpus --sources DOWNLOADS --out CORPUS

Writes `drawings.npy` (premultiplied RGBA, 48x48), `shapes.npy` (20x20 alpha) and `meta.npz`/`meta.json`.
"""

import argparse
import collections
import hashlib
import io
import json
import logging
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from baselines.embedded import shapes
from baselines.embedded.catalogue import UI_WORDS, Words, synonym_table
from baselines.embedded.names import concept_of, contains
from baselines.embedded.sources import WHOLE_SETS, Iconify

SIZE = 48
PRETRAIN, TRAIN, VAL, TEST, DROPPED = 0, 1, 2, 3, 4
SPLIT_NAMES = ("pretrain", "train", "val", "test", "dropped")
MIN_SETS = 7
log = logging.getLogger(__name__)


def wanted_icons(iconify: Iconify) -> list[dict[str, Any]]:
    """Every icon to render: class drawings, and concepts drawn in enough sets; never a name that holds a class name."""
    table = synonym_table()
    last_words = collections.defaultdict(list)
    for entry in table:
        last_words[entry[-1]].append(entry)
    found: list[dict[str, Any]] = []
    drawn_in: dict[Words, set[str]] = collections.defaultdict(set)
    for name in iconify.collections:
        data = iconify.icon_set(name)
        for icon, drawn in data["icons"].items():
            words = concept_of(icon)
            if not words or "skin-tone" in icon or drawn.get("hidden"):
                continue
            drawn_in[words].add(name)
            size = (drawn.get("width", data.get("width", 16)), drawn.get("height", data.get("height", 16)))
            box = (drawn.get("left", data.get("left", 0)), drawn.get("top", data.get("top", 0)))
            found.append({"set": name, "icon": icon, "words": words, "body": drawn["body"], "box": (*box, *size)})
    kept = []
    for one in found:
        words = one["words"]
        theme, label = table.get(words, ("", ""))
        if not theme:
            if any(contains(words, part) for word in words for part in last_words.get(word, ())):
                continue
            if UI_WORDS & set(words):
                continue
            if len(drawn_in[words]) < MIN_SETS and one["set"] not in WHOLE_SETS:
                continue
            label = " ".join(words)
        kept.append(one | {"theme": theme, "label": label})
    return kept


def render(entry: dict[str, Any]) -> tuple[bytes, bool] | None:
    """Premultiplied RGBA bytes (48x48) and whether the drawing has one colour; None if it cannot be drawn."""
    import resvg_py

    body, (left, top, width, height) = entry["body"], entry["box"]
    if "<animate" in body or "<text" in body or "<image" in body:
        return None
    side = max(width, height)
    view = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view}" '
        f'width="{SIZE}" height="{SIZE}" color="#000">{body}</svg>'
    )
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)
    except Exception:  # the renderer raises its own types; an icon that cannot be drawn is simply left out
        return None
    rgba = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"), np.float32)
    if rgba.shape != (SIZE, SIZE, 4):
        return None
    alpha = rgba[..., 3:] / 255
    coverage = float(alpha.mean())
    if not 0.01 < coverage < 0.92:
        return None
    colour = rgba[..., :3] * alpha
    mono = bool(colour.max() < 8)
    rgba = np.concatenate([colour, rgba[..., 3:]], 2)
    return np.rint(rgba).astype(np.uint8).tobytes(), mono


def deal(vectors: shapes.Floats, rng: np.random.Generator) -> NDArray[np.int8]:
    """[N] split of each drawing of one class; whole clusters only, large clusters go to pre-training."""
    n = len(vectors)
    cluster = shapes.clusters(vectors)
    ids, size = np.unique(cluster, return_counts=True)
    quota = {TEST: 0.24 * n, TRAIN: 0.16 * n, VAL: 0.04 * n}
    split = np.full(n, PRETRAIN, np.int8)
    order = rng.permutation(len(ids))
    small = [i for i in order if size[i] <= max(2, 0.04 * n)]
    for which in (VAL, TRAIN, TEST):
        filled = 0
        while small and filled < max(quota[which], 4):
            pick = small.pop()
            split[cluster == ids[pick]] = which
            filled += int(size[pick])
    return split


def distinct(contents: list[bytes], first: list[bool]) -> list[int]:
    """The rows to keep so that each content stays once; a row flagged `first` is preferred over the others."""
    seen: set[bytes] = set()
    keep = []
    for i in sorted(range(len(contents)), key=lambda row: not first[row]):
        digest = hashlib.sha256(contents[i]).digest()
        if digest not in seen:
            seen.add(digest)
            keep.append(i)
    return sorted(keep)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, help="folder with the pinned archives")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    iconify = Iconify(args.sources)
    wanted = wanted_icons(iconify)
    log.info("%d sets, %d icons to render", len(iconify.collections), len(wanted))
    with multiprocessing.Pool(args.jobs) as pool:
        rendered = pool.map(render, wanted, chunksize=256)
    drawn = [(entry, *result) for entry, result in zip(wanted, rendered, strict=True) if result is not None]
    keep = distinct([pixels for _, pixels, _ in drawn], [entry["theme"] != "" for entry, _, _ in drawn])
    entries = [drawn[i][0] for i in keep]
    drawings = np.stack([np.frombuffer(drawn[i][1], np.uint8).reshape(SIZE, SIZE, 4) for i in keep])
    mono_flags = np.array([drawn[i][2] for i in keep])
    shape = shapes.descriptors(drawings[..., 3])
    split = split_drawings(entries, shapes.unit(shape), args.seed)
    labels = sorted({(e["theme"], e["label"]) for e in entries})
    number = {label: i for i, label in enumerate(labels)}
    np.save(args.out / "drawings.npy", drawings)
    np.save(args.out / "shapes.npy", shape)
    label = np.array([number[e["theme"], e["label"]] for e in entries], np.int32)
    np.savez(args.out / "meta.npz", label=label, split=split, mono=mono_flags)
    meta = {"labels": labels, "icons": [[e["set"], e["icon"]] for e in entries], "collections": iconify.collections}
    (args.out / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    for theme in sorted({t for t, _ in labels if t}):
        for name in sorted(n for t, n in labels if t == theme):
            row = [int(np.sum((label == number[theme, name]) & (split == s))) for s in range(5)]
            log.info("%-10s %-14s %s", theme, name, dict(zip(SPLIT_NAMES, row, strict=True)))
    log.info("%d drawings, %d labels, splits %s", len(entries), len(labels), np.bincount(split, minlength=5))


def split_drawings(entries: list[dict[str, Any]], vectors: shapes.Floats, seed: int) -> NDArray[np.int8]:
    """Splits of all drawings; afterwards nothing in pre-training looks like a held-out drawing of any class."""
    split = np.full(len(entries), PRETRAIN, np.int8)
    members: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    for i, entry in enumerate(entries):
        if entry["theme"]:
            members[entry["theme"], entry["label"]].append(i)
    for key in sorted(members):
        digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
        split[members[key]] = deal(vectors[members[key]], np.random.default_rng(list(digest)))
    held = np.isin(split, (TRAIN, VAL, TEST))
    pool = np.flatnonzero(split == PRETRAIN)
    split[pool[shapes.near(vectors[pool], vectors[held])]] = DROPPED
    return split


if __name__ == "__main__":
    main()
