"""The pre-training pool: which drawings a caption can show, and the stream of batches."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from baselines.embedded.catalogue import FASHION_CLASSES, FASHION_TEMPLATE, TEMPLATE
from baselines.embedded.compose import compose
from baselines.embedded.corpus import PRETRAIN

TEMPLATES = (
    TEMPLATE, TEMPLATE, TEMPLATE, "a {}", "{}", "a drawing of a {}.", "an icon of a {}.", "a photo of a {}.",
    "this is a {}.", "an image of a {}.", "a small picture of a {}.",
)  # fmt: skip
FASHION_TEMPLATES = (FASHION_TEMPLATE, FASHION_TEMPLATE, TEMPLATE, "a {}", "a photo of a {}.")
THEME_WEIGHT = {"animals": 1.5}


@dataclass(slots=True)
class Pool:
    """All pre-training drawings, grouped by concept."""

    drawings: Tensor
    mono: Tensor
    names: list[str]
    members: list[Tensor]
    is_class: list[bool]
    is_fashion: list[bool]
    weight: Tensor


def load(folder: Path) -> Pool:
    """The pool of a corpus folder; nothing outside the split `pretrain` is read into it."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / "meta.npz")
    keep = np.flatnonzero(arrays["split"] == PRETRAIN)
    label, mono = arrays["label"][keep], arrays["mono"][keep]
    drawings = np.load(folder / "drawings.npy", mmap_mode="r")[keep]
    fashion = np.load(folder / "fashion-meta.npz")
    fashion_keep = np.flatnonzero(fashion["split"] == PRETRAIN)
    photographs = np.load(folder / "fashion-drawings.npy", mmap_mode="r")[fashion_keep]
    concepts = [(theme, name, np.flatnonzero(label == i)) for i, (theme, name) in enumerate(meta["labels"])]
    fashion_label = fashion["label"][fashion_keep] + 0
    concepts += [
        ("fashion", name, len(keep) + np.flatnonzero(fashion_label == i)) for i, name in enumerate(FASHION_CLASSES)
    ]
    concepts = [entry for entry in concepts if len(entry[2])]
    return Pool(
        drawings=torch.cat([torch.from_numpy(np.ascontiguousarray(drawings)), torch.from_numpy(photographs.copy())]),
        mono=torch.cat([torch.from_numpy(mono), torch.zeros(len(fashion_keep), dtype=torch.bool)]),
        names=[name for _, name, _ in concepts],
        members=[torch.from_numpy(rows) for _, _, rows in concepts],
        is_class=[theme != "" for theme, _, _ in concepts],
        is_fashion=[theme == "fashion" for theme, _, _ in concepts],
        weight=torch.tensor(
            [THEME_WEIGHT.get(theme, 1.0) if theme else len(rows) ** 0.5 for theme, _, rows in concepts]
        ),
    )


def draw_batch(
    pool: Pool, captions: int, class_share: float, strength: float, seed: int, part: int = 0, parts: int = 1
) -> tuple[Tensor, list[str]]:
    """[2B, 3, 40, 40] uint8 pictures and B captions of one part of a batch; pictures i and B + i show caption i.

    All parts of one seed draw the same captions (no concept twice in a batch) and compose their own share of them.
    """
    rng = torch.Generator().manual_seed(seed)
    flags = torch.tensor(pool.is_class)
    chosen = []
    for group, share in ((flags, class_share), (~flags, 1 - class_share)):
        weights = torch.where(group, pool.weight, torch.zeros(()))
        chosen.append(torch.multinomial(weights, round(captions * share), generator=rng))
    concepts = torch.cat(chosen).tolist()
    rows: list[list[int]] = [[], []]
    texts = []
    for concept in concepts:
        members = pool.members[concept]
        if len(members) > 1:
            first, second = torch.randperm(len(members), generator=rng)[:2].tolist()
        else:
            first = second = 0
        rows[0].append(int(members[first]))
        rows[1].append(int(members[second]))
        templates = FASHION_TEMPLATES if pool.is_fashion[concept] else TEMPLATES
        pick = int(torch.randint(len(templates), (1,), generator=rng))
        texts.append(templates[pick].format(pool.names[concept]))
    index = torch.tensor(rows[0][part::parts] + rows[1][part::parts])
    rng.manual_seed(seed * parts + part)
    pictures = compose(pool.drawings[index], pool.mono[index], strength, rng)
    return (pictures * 255).round().byte(), texts[part::parts]
