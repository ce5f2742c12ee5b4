"""Fine-tunes the clean backbone adversarially, in the manner of TeCoA (Mao et al., 2023).

    python -m baselines.embedded.robust --corpus CORPUS --clean CLEAN_RUN --out RUN

Each caption has one clean and one attacked picture. The attack (two steps of projected gradient ascent from a random
start, budget drawn per picture between 0 and 4/255) maximises the cross-entropy of the picture against the captions
of the batch. Both towers are trained.
"""

import json
from pathlib import Path

import torch
from open_clip import CLIP
from torch import Tensor
from torch.nn import functional as F

from baselines.embedded.loop import Plan, Tower, launch, options

STEPS = 2
BUDGET = 4 / 255
RATE, MATRIX_RATE = 8e-4, 2.5e-3


def attack_half(model: CLIP, tower: Tower, pictures: Tensor, texts: Tensor, rng: torch.Generator) -> Tensor:
    """[2B, 3, H, W] pictures, the second half of them attacked; `texts` holds the captions of all processes."""
    captions = len(pictures) // 2
    clean = pictures[captions:]
    world = len(texts) // captions
    rank = torch.distributed.get_rank() if world > 1 else 0
    target = torch.arange(captions, device=pictures.device) + rank * captions
    eps = (torch.rand(captions, 1, 1, 1, generator=rng) * BUDGET).to(pictures.device)
    start = torch.rand(clean.shape, generator=rng).to(pictures.device) * 2 - 1
    attacked = (clean + eps * start).clamp(0, 1)
    scale = model.logit_scale.exp().detach()
    model.requires_grad_(False)
    for _ in range(STEPS):
        attacked.requires_grad_()
        features = tower(model, attacked, half=pictures.device.type == "cuda")
        loss = F.cross_entropy(scale * features @ texts.T, target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, attacked)
        moved = attacked.detach() + 0.75 * eps * gradient.sign()
        attacked = (clean + (moved - clean).clamp(-eps, eps)).clamp(0, 1)
    model.requires_grad_(True)
    return torch.cat([pictures[:captions], attacked.detach()])


def main() -> None:
    """Command line."""
    parser = options(__doc__)
    parser.add_argument("--clean", type=Path, required=True, help="folder of the finished pre-training")
    parser.add_argument("--steps", type=int, default=900)
    args = parser.parse_args()
    clean = json.loads((args.clean / "run.json").read_text(encoding="utf-8"))
    recipe = {
        "objective": "contrastive, one clean and one attacked picture for each caption (TeCoA-style)",
        "attack": f"PGD-{STEPS}, Linf, random start, step 0.75 eps, eps uniform in [0, 4/255]",
        "trained": "both towers",
        "optimiser": f"Muon {MATRIX_RATE} for transformer matrices, AdamW {RATE} for the rest, weight decay 0.1",
        "precision": "fp32 on a CPU, bf16 image tower on a GPU",
        "started_from": clean["recipe"],
    }
    plan = Plan(
        corpus=args.corpus, out=args.out, steps=args.steps, decay_at=args.steps // 3, recipe=recipe, warm_up=30,
        rate=RATE, matrix_rate=MATRIX_RATE, seed=args.seed + 1, processes=args.processes, compile=args.compile,
        start_from=args.clean / "weights.safetensors", attack=attack_half, samples_before=clean["samples_seen"],
    )  # fmt: skip
    launch(plan)


if __name__ == "__main__":
    main()
