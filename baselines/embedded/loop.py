"""The training loop that pre-training and robust fine-tuning share."""

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional as F

from baselines.embedded import pool as pools
from baselines.embedded.checkpoint import load_state, save_recipe, save_state
from baselines.embedded.model import build_model, image_features, load_half, save_half, text_features, tokenizer
from baselines.embedded.muon import Muon

SCALE_LIMIT = 4.6052
SAVE_EVERY = 150.0
Tower = Callable[..., Tensor]
Attack = Callable[[CLIP, Tower, Tensor, Tensor, torch.Generator], Tensor]
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train, for how long, and how."""

    corpus: Path
    out: Path
    steps: int
    decay_at: int
    recipe: dict[str, Any]
    warm_up: int = 100
    captions: int = 128
    class_share: float = 0.55
    strength: float = 0.7
    rate: float = 1.5e-3
    matrix_rate: float = 5e-3
    seed: int = 0
    processes: int = 2
    compile: bool = True
    start_from: Path | None = None
    attack: Attack | None = None
    samples_before: int = 0


def two_positive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Contrastive loss of [2, B, D] picture and [B, D] caption vectors; pictures [:, i] belong to caption i."""
    logits = scale * images.flatten(0, 1) @ texts.T
    own = torch.arange(len(texts), device=logits.device)
    to_text = F.cross_entropy(logits, own.repeat(2))
    log_share = F.log_softmax(logits.T, dim=1)
    to_image = -(log_share[own, own] + log_share[own, own + len(texts)]).mean() / 2
    return (to_text + to_image) / 2


def gathered(own: Tensor) -> Tensor:
    """[world, ...] the tensors of all processes; gradients flow into the own one only."""
    if not distributed.is_initialized():
        return own[None]
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own.detach().contiguous())
    parts[distributed.get_rank()] = own
    return torch.stack(parts)


def feed(queue: Any, plan: Plan, start: int, part: int) -> None:
    """Puts batches into the queue for ever; batch k depends on the seed and k only, so a resumed run sees the same."""
    torch.set_num_threads(1)
    pool = pools.load(plan.corpus)
    step = start
    while True:
        seed = plan.seed * 1_000_003 + step
        pictures, texts = pools.draw_batch(
            pool, plan.captions, plan.class_share, plan.strength, seed, part, plan.processes
        )
        queue.put((pictures.numpy(), texts))
        step += 1


def batches(plan: Plan, start: int, part: int) -> Iterator[tuple[Tensor, list[str]]]:
    """Pictures in [0, 1] and captions, composed by another process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(maxsize=6)
    context.Process(target=feed, args=(queue, plan, start, part), daemon=True).start()
    while True:
        pictures, texts = queue.get()
        yield torch.from_numpy(pictures).float() / 255, texts


def optimisers(model: CLIP, rate: float, matrix_rate: float) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices inside the transformers; without a matrix rate AdamW alone."""
    matrices, plain, free = [], [], []
    for name, parameter in model.named_parameters():
        if matrix_rate and parameter.ndim == 2 and "resblocks" in name:
            matrices.append(parameter)
        elif parameter.ndim >= 2:
            plain.append(parameter)
        else:
            free.append(parameter)
    groups = [{"params": plain, "weight_decay": 0.1}, {"params": free, "weight_decay": 0.0}]
    result: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))]
    if matrices:
        result.append(Muon(matrices, lr=matrix_rate))
    for optimiser in result:
        for group in optimiser.param_groups:
            group["base"] = group["lr"]
    return result


def factor(step: int, warm_up: int, decay_at: int, steps: int) -> float:
    """Learning rate at a step, relative to the peak: warm-up, constant, linear to zero."""
    if step < warm_up:
        return (step + 1) / warm_up
    if step < decay_at:
        return 1.0
    return max(0.0, (steps - step) / max(1, steps - decay_at))


def share_gradients(model: CLIP) -> None:
    """Adds up the gradients of all processes; each has the whole loss, so the temperature's is counted once."""
    if not distributed.is_initialized():
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    if model.logit_scale.grad is not None:
        model.logit_scale.grad /= distributed.get_world_size()


def train(rank: int, plan: Plan) -> None:
    """One process of a run."""
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, format="%(asctime)s %(message)s")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if plan.processes > 1:
        torch.set_num_threads(1)
        where = f"file://{plan.out.resolve()}/rendezvous"
        distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=plan.processes)
    torch.manual_seed(plan.seed)
    model = (load_half(plan.start_from) if plan.start_from else build_model()).to(device).train()
    optimiser = optimisers(model, plan.rate, plan.matrix_rate)
    start = load_state(plan.out, model, optimiser)
    encode, half = tokenizer(), device.type == "cuda"
    tower = torch.compile(image_features, dynamic=False) if plan.compile else image_features
    decay_at, steps = plan.decay_at, plan.steps
    stream = batches(plan, start, rank)
    began = saved = time.monotonic()
    losses: list[float] = []
    for step in range(start, 10**9):
        if step % 50 == 0 and (plan.out / "decay").is_file():
            decay_at, steps = map(int, (plan.out / "decay").read_text(encoding="utf-8").split())
        ended = step >= steps
        if rank == 0 and (step % 50 == 0 or ended):
            mean = sum(losses) / max(1, len(losses))
            speed = (step - start) * 2 * plan.captions / (time.monotonic() - began)
            log.info("step %d loss %.3f scale %.1f  %.0f img/s", step, mean, model.logit_scale.exp().item(), speed)
            losses.clear()
        if rank == 0 and (ended or time.monotonic() - saved > SAVE_EVERY):
            save_state(plan.out, model, optimiser, step)
            save_half(model, plan.out / "weights.safetensors")
            schedule = f"{plan.warm_up} steps warm-up, constant to step {decay_at}, linear to zero at step {steps}"
            samples = plan.samples_before + step * 2 * plan.captions
            save_recipe(plan.out, plan.recipe | {"schedule": schedule, "steps": step}, samples, plan.seed)
            saved = time.monotonic()
        if ended:
            break
        for one in optimiser:
            for group in one.param_groups:
                group["lr"] = group["base"] * factor(step, plan.warm_up, decay_at, steps)
        pictures, captions = next(stream)
        pictures = pictures.to(device)
        own_texts = text_features(model, encode(captions).to(device))
        texts = gathered(own_texts).flatten(0, 1)
        if plan.attack:
            rng = torch.Generator().manual_seed(plan.seed * 1_000_003 + step * plan.processes + rank)
            pictures = plan.attack(model, tower, pictures, texts.detach(), rng)
        images = tower(model, pictures, half=half).view(2, len(captions), -1)
        loss = two_positive_loss(gathered(images).transpose(0, 1).flatten(1, 2), texts, model.logit_scale.exp())
        for one in optimiser:
            one.zero_grad()
        torch.autograd.backward(loss)
        share_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one in optimiser:
            one.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, SCALE_LIMIT)
        losses.append(loss.item())


def launch(plan: Plan) -> None:
    """Runs the plan to its end: in this process on a GPU, else in `processes` single-threaded ones."""
    plan.out.mkdir(parents=True, exist_ok=True)
    (plan.out / "rendezvous").unlink(missing_ok=True)
    if plan.processes == 1:
        train(0, plan)
        return
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=train, args=(rank, plan)) for rank in range(plan.processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that both training scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an unfinished run there goes on")
    parser.add_argument("--seed", type=int, default=0)
    count = 1 if torch.cuda.is_available() else 2
    parser.add_argument("--processes", type=int, default=count, help="default: 2 on a CPU, 1 on a GPU")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    return parser
