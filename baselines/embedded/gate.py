"""Measures the backbones on the full test splits: zero-shot accuracy and accuracy under PGD-10.

    python -m baselines.embedded.gate [--weights FILE ...] [--clean-only]

The attack ascends logsumexp over the wrong classes minus the true logit, which does not saturate; an image counts as
robust if no step fooled the model. Budgets are in units of 1/255 of pixels in [0, 1].
"""

import argparse
import io
import json
import logging
from pathlib import Path

import numpy as np
import torch
from open_clip import CLIP
from PIL import Image
from torch import Tensor

from baselines.embedded.datasets import DATASETS
from baselines.embedded.model import MODELS, image_features, load_half, text_features, tokenizer

BUDGETS = (0.5, 1.0, 2.0, 4.0)
STEPS = 10
log = logging.getLogger(__name__)


def test_split(name: str) -> tuple[Tensor, Tensor, list[str]]:
    """[N, 3, 40, 40] test pictures, [N] labels, one prompt for each class."""
    card = json.loads((DATASETS / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(DATASETS / f"{name}.npz", allow_pickle=False) as arrays:
        rows = np.flatnonzero(arrays["split"] == 2)
        blob, offsets = arrays["blob"].tobytes(), arrays["offsets"]
        images = [Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]])).convert("RGB") for i in rows]
        labels = torch.from_numpy(arrays["label"][rows].astype(np.int64))
    pixels = np.stack([np.asarray(image) for image in images])
    prompts = [card["template"].format(c) for c in card["classes"]]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().contiguous() / 255, labels, prompts


def logits(model: CLIP, pictures: Tensor, texts: Tensor) -> Tensor:
    """[B, K] scaled cosines."""
    scores: Tensor = model.logit_scale.exp() * image_features(model, pictures) @ texts.T
    return scores


def survivors(model: CLIP, texts: Tensor, pictures: Tensor, labels: Tensor, eps: float, seed: int = 0) -> Tensor:
    """[B] whether PGD-10 within eps never changed the decision to a wrong class."""
    rng = torch.Generator().manual_seed(seed)
    delta = (torch.rand(pictures.shape, generator=rng) * 2 - 1) * eps
    with torch.no_grad():
        safe = logits(model, pictures, texts).argmax(1) == labels
    true = torch.nn.functional.one_hot(labels, len(texts)).bool()
    for _ in range(STEPS + 1):
        attacked = (pictures + delta).clamp(0, 1).requires_grad_()
        z = logits(model, attacked, texts)
        safe &= z.argmax(1) == labels
        loss = z.masked_fill(true, -torch.inf).logsumexp(1) - z[true]
        (gradient,) = torch.autograd.grad(loss.sum(), attacked)
        delta = (attacked.detach() + eps / 4 * gradient.sign() - pictures).clamp(-eps, eps)
    return safe


def measure(path: Path, budgets: tuple[float, ...] = BUDGETS) -> dict[str, list[float]]:
    """Set name -> accuracy in percent, clean and at each budget."""
    model, encode = load_half(path).requires_grad_(False), tokenizer()
    table = {}
    for name in sorted(p.stem for p in DATASETS.glob("*.npz")):
        pictures, labels, prompts = test_split(name)
        with torch.no_grad():
            texts = text_features(model, encode(prompts))
            clean = (logits(model, pictures, texts).argmax(1) == labels).float().mean().item()
        row = [clean]
        for budget in budgets:
            row.append(survivors(model, texts, pictures, labels, budget / 255).float().mean().item())
        table[name] = [round(100 * x, 1) for x in row]
    return table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [MODELS / "tiny-clean.safetensors", MODELS / "tiny-robust.safetensors"]
    parser.add_argument("--weights", type=Path, nargs="+", default=default)
    parser.add_argument("--clean-only", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    for path in args.weights:
        budgets = () if args.clean_only else BUDGETS
        log.info("%s: zero-shot %s", path.name, "".join(f" | {b}/255" for b in budgets))
        table = measure(path, budgets)
        for name, row in table.items():
            log.info("| %-8s | %s |", name, " | ".join(f"{x:5.1f}" for x in row))
        passed = sum(row[0] >= 40 for row in table.values())
        mean = sum(row[0] for row in table.values()) / len(table)
        log.info("%d of %d sets reach 40 %%, mean %.1f", passed, len(table), mean)


if __name__ == "__main__":
    main()
