"""Arithmetic, verdicts and fits of the GPU against those of the CPU."""

from __future__ import annotations

import contextlib
import itertools
import time
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

import apd_bench
from apd_bench.attacks.parse import parse_attack
from apd_bench.backbones.load import load_backbone
from apd_bench.core.registry import ATTACKS, DATASETS, DEFENCES, METHODS
from apd_bench.core.specs import Fit, ThreatModel
from apd_bench.data.splits import load_dataset
from apd_bench.defences.parse import make_defence
from apd_bench.evaluation.cell import evaluate_samples
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.classifier import matmul_precision
from apd_bench.runner import stages
from apd_bench.training.fit import fit as train
from tests.benchmarks.cuda.checks import PRECISIONS, SHORT, TINY, Bench, Wrong, check, each, gradient, off
from tests.benchmarks.models import made_up, zero_shot


@check("fp32 is fp32", 5)
def arithmetic(b: Bench) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    n = 128 if b.small else 1024
    a, c = (torch.randn(n, n, generator=g) for _ in range(2))
    q, x, w = (torch.randn(s, generator=g) for s in ((2, 12, 197, 64), (8, 3, 64, 64), (64, 3, 16, 16)))
    work = {
        "product": (lambda a, c: a @ c, (a, c)),
        "convolution": (lambda x, w: F.conv2d(x, w, stride=16), (x, w)),
        "attention": (F.scaled_dot_product_attention, (q, q, q)),
    }
    facts = {}
    for precision in PRECISIONS[:2]:
        with matmul_precision(precision):
            for name, (do, given) in work.items():
                exact = do(*(t.double() for t in given))
                facts[f"{name} in {precision}"] = off(do(*(t.to(b.device) for t in given)), exact)
    if max(value for name, value in facts.items() if "fp32" in name) > 2e-5:
        raise Wrong(f"reduced precision is on: {facts}")
    if b.cuda and not b.small and facts["product in tf32"] < 1e-5:
        raise Wrong(f"tf32 was asked for and is not used: {facts}")
    return {name: f"{value:.1e}" for name, value in facts.items()}


@check("logits and gradients of CPU and GPU", 10)
def logits(b: Bench) -> dict[str, Any]:
    facts, worst = {}, 0.0
    with matmul_precision("fp32"):
        for name, batch in ((TINY, 16), (b.big, 4)):
            here, there = (made_up(load_backbone(name, place), batch) for place in ("cpu", b.device))
            (z0, g0), (z1, g1) = gradient(here.classifier, here.pixels), gradient(there.classifier, there.pixels)
            signs = float((g0.sign() == g1.cpu().sign()).float().mean())
            short = off(gradient(there.classifier.in_precision("bf16"), there.pixels)[0], z0)
            worst = max(worst, off(z1, z0), off(g1, g0))
            away = f"logits {off(z1, z0):.0e}, gradients {off(g1, g0):.0e}"
            facts[name] = f"{away}, signs {100 * signs:.2f} %, bf16 {short:.0e}"
    if worst > 1e-3:
        raise Wrong(str(facts))
    return facts


@check("same gradient twice *", 10)
def twice(b: Bench) -> dict[str, Any]:
    facts = {}
    ways = {"": contextlib.nullcontext, ", as fits": lambda: stages.repeatable_attention(b.device)}
    with matmul_precision("fp32"):
        for name, batch in itertools.product((TINY, b.big), (2,) if b.small else (1, 8, 64)):
            part = made_up(load_backbone(name, b.device), batch)
            for title, within in ways.items():
                with within():
                    pair = [gradient(part.classifier, part.pixels)[1] for _ in range(2)]
                same = "same bits" if torch.equal(*pair) else f"off by {off(*pair):.0e}"
                facts[f"{name}, batch {batch}{title}"] = same
    return facts


@check("evaluate() and where things are", 5)
def api(b: Bench) -> dict[str, Any]:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)).to(b.device)
    x, y = torch.rand(12, 3, 8, 8), torch.arange(12) % 5

    def robust(*data: Any, attack: str = "pgd(steps=3)", of: Any = model, **options: Any) -> float:
        return round(apd_bench.evaluate(of, data, attack, **options).robust_accuracy, 2)

    def flagged(precision: str) -> float:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            return robust(x, y)
        finally:
            torch.set_float32_matmul_precision(before)

    library = "autoattack(iterations=3,queries=5,targets=2)"
    return each(
        {
            "tensors on the CPU": lambda: robust(x, y),
            "on the device": lambda: robust(x.to(b.device), y.to(b.device)),
            "arrays": lambda: robust(x.numpy(), y.numpy()),
            "a function": lambda: robust(x, y, of=lambda z: model(z), device=b.device),
            "AutoAttack, L2": lambda: robust(x, y, attack=library, threat="L2 0.3"),
            "matmul precision high": lambda: flagged("high"),
            "matmul precision medium": lambda: flagged("medium"),
        }
    )


@check("all attacks against the CPU's verdicts", 60)
def attacks(b: Bench) -> dict[str, Any]:
    count = 4 if b.small else 30
    models = {place: zero_shot(load_backbone(TINY, place), "animals", count) for place in ("cpu", b.device)}

    def run(name: str, norm: str, place: str) -> Any:
        model, test = models[place]
        threat = ThreatModel(eps=3 / 255 if norm == "Linf" else 0.5, norm=norm)
        return evaluate_samples(model, test, parse_attack(name + SHORT.get(name, "")), threat, seed=3, device=place)

    def compare(name: str, norm: str) -> str:
        if time.time() > b.ends - 120:
            return "no time"
        one, two = run(name, norm, b.device), run(name, norm, "cpu")
        differ = int((one.outcomes.broken != two.outcomes.broken).sum())
        if differ > 1:
            raise Wrong(f"{differ} of {count} verdicts differ")
        return f"{differ} of {count} differ, {100 * one.robust_accuracy:.0f} % stand"

    names = [name for name in ATTACKS.names() if not name.startswith(("ta:", "autoattack."))]
    names = ["pgd", "cw", "none"] if b.small else names
    return each({f"{name} {norm}": partial(compare, name, norm) for name in names for norm in ATTACKS.get(name).norms})


@check("all methods and presets train", 45)
def methods(b: Bench) -> dict[str, Any]:
    body = {place: load_backbone(TINY, place) for place in ("cpu", b.device)}
    data = load_dataset(DATASETS.get("fashion"), image_size=body["cpu"].shapes.image_size)

    def trained(name: str, place: str) -> Any:
        changes = {"training": {"epochs": 1, "warmup_epochs": 0, "batch_size": 8}}
        changes |= {"learner": {"tokens": 8}} if name == "advpt" else {}
        recipe = load_recipe(name, changes) if load_recipe(name).trains else load_recipe(name)
        eps = 3 / 255 if recipe.trains else None
        fit = Fit(backbone=body[place].spec, method=recipe, dataset=data.spec, seed=1, shots=2, train_eps=eps)
        with matmul_precision("fp32"), stages.repeatable_attention(place):
            return train(fit, body[place], data, device=place)

    def finite(name: str) -> str:
        state = trained(name, b.device).state
        if not all(bool(value.isfinite().all()) and value.device.type == "cpu" for value in state.values()):
            raise Wrong("not finite, or not on the CPU")
        return "trained"

    def against(name: str) -> str:
        one, two, again = trained(name, b.device), trained(name, "cpu"), trained(name, b.device)
        far = max(off(one.state[key], two.state[key]) for key in one.state if one.state[key].numel())
        return f"{far:.0e} from the CPU's, twice {'the same bits' if one.digest == again.digest else 'OTHER BITS'}"

    names = [name for name in METHODS.names() if not b.small or "." not in name]
    done = each({name: partial(finite, name) for name in names})
    return {"trained": len(done)} | each({name: partial(against, name) for name in ("coop", "maple", "advvlp", "apd")})


SIGNS = ("anti_adversary",)  # steps along signs, so a few images differ: a gradient next to 0 has either sign


@check("test-time defences against the CPU's", 60)
def defences(b: Bench) -> dict[str, Any]:
    count, views = (2, 3) if b.small else (12, 8)
    models = [(place, *zero_shot(load_backbone(TINY, place), "animals", count)) for place in ("cpu", b.device)]
    short = parse_attack("adaptive(iterations=3,near=1,targets=1,draws=1,queries=5)")
    sizes = dict.fromkeys(("mean_views", "tpt", "r_tpt"), f"(views={views})") | {"smoothed": f"(samples={views})"}

    def compare(name: str) -> str:
        answers, verdicts = [], []
        for place, model, test in models:
            defence = make_defence(name + sizes.get(name, ""), model)
            answers.append(defence(test.pixels(range(count)).to(place), (1,)))
            found = evaluate_samples(defence, test, short, ThreatModel(eps=2 / 255), device=place, batch_size=64)
            verdicts.append(found.outcomes.broken)
        differ = int((verdicts[0] != verdicts[1]).sum())
        away = (answers[1].cpu() - answers[0]).abs().amax(1) / answers[0].abs().max()
        far = int((away > 1e-3).sum())
        facts = f"predictions off by {away.median():.0e}, {far} by over 1e-3, {differ} of {count} verdicts differ"
        if differ > 1 or far > (count // 4 if name in SIGNS else 0):
            raise Wrong(facts)
        return facts

    with matmul_precision("fp32"):
        names = [name for name in DEFENCES.names() if "visual_tokens" not in DEFENCES.get(name).needs]
        return each({name: partial(compare, name) for name in names})
