"""The adaptive attack: what only hides gradients falls to the undefended level, and what helps keeps its number."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from apd_bench.api import evaluate
from apd_bench.attacks import run
from apd_bench.attacks.losses import margin
from apd_bench.attacks.meter import Meter
from apd_bench.attacks.search import attacking
from apd_bench.backbones.load import load_backbone
from apd_bench.core.specs import ThreatModel
from apd_bench.defences.adaptive import _Hinged, _Hunt, _slope
from apd_bench.defences.base import REPEATS, Attacked, Defence, Verdict, majority
from apd_bench.defences.parse import make_defence
from apd_bench.training.prompt_states import zero_shot

N = 100
SHORT = "adaptive(iterations=10, near=2, targets=2, draws=4, queries=50)"
BLIND = "adaptive(iterations=10, near=2, targets=2, draws=4, order=('transfer', 'straight', 'replay'))"


class Identity(Defence):
    """An adaptation that does nothing."""

    def predict(self, x, noise):
        return self.logits(x)


class Copy(Defence):
    """The same behind a copy that no gradient passes."""

    def predict(self, x, noise):
        return self.logits(x.detach().clone())


class Circle(Defence):
    """Ten steps that end where they began, each of which is a constant to autograd but for a part in 10^15."""

    gradients = ("replay", "unrolled")

    def predict(self, x, noise):
        u = x
        for _ in range(10):
            u = 1 - (self.constant(u) + (u - u.detach()) * 1e-15 if not self.unrolled else u)
        return self.logits(u)


class Resize(Defence):
    """The image at a random multiple of its size, and back by averages; any other size smooths, which really helps."""

    draws = True

    def noise(self, generator, shape):
        return shape[-1] * int(torch.randint(2, 6, (), generator=generator))

    def predict(self, x, noise):
        return self.logits(interpolate(interpolate(x, size=noise), size=x.shape[-1], mode="area"))


class Guarded(Defence):
    """Blind to gradients and coarse while the image is dark at a corner; the model as it is where it is bright."""

    gate = True

    def predict(self, x, noise):
        on = self.constant(self.hinge(x, ())) > 0
        return self.logits(torch.where(on[:, None, None, None], (4 * x.detach()).round() / 4, x))

    def hinge(self, x, draw):
        return (0.5 - x[:, :, :2, :2].mean((1, 2, 3))).relu()


@pytest.fixture(scope="module")
def net(small_net):
    return small_net(n=N)


def robust(model, net, attack, eps, knowledge="white_box"):
    return evaluate(model, net[1:3], attack, ThreatModel(eps=eps / 255, knowledge=knowledge)).robust_accuracy


@pytest.mark.parametrize("defence", [Copy, Circle, Resize])
def test_a_defence_that_only_hides_gradients_is_broken_to_the_undefended_level(defence, net):
    eps = 4
    undefended = robust(net[0], net, "worst(steps=10)", eps)
    assert 0.1 < undefended < 0.9
    assert defence is Resize or robust(defence(net[0]), net, "pgd(steps=3)", eps) > undefended + 0.3
    assert robust(defence(net[0]), net, BLIND, eps) <= undefended + 0.01


@pytest.mark.parametrize("eps", [1, 4])
def test_a_defence_that_does_nothing_keeps_the_number_of_its_model(eps, net):
    assert robust(Identity(net[0]), net, BLIND, eps) == robust(net[0], net, "worst(steps=10)", eps) > 0


def test_a_robust_backbone_behind_an_adaptation_that_does_nothing_keeps_its_number(tiny):
    data, images = (tiny[0].learner.class_names, tiny[0].learner.template), [part[:40] for part in tiny[1:3]]
    robust_model = zero_shot(load_backbone("tiny-robust"), *data)
    found = {
        name: [evaluate(kind(model), images, attack, "Linf 4/255").robust_accuracy
               for kind, attack in ((lambda model: model, "worst(steps=10)"), (Identity, BLIND))]
        for name, model in (("clean", tiny[0]), ("robust", robust_model))
    }  # fmt: skip
    assert found["robust"][0] == found["robust"][1] > found["clean"][0] + 0.3
    assert found["clean"][0] == found["clean"][1]


def test_marks_tell_what_transfers_and_gradients_that_are_not_those_of_the_adaptation(net):
    threat = ThreatModel(eps=4 / 255)
    marks = {kind: evaluate(kind(net[0]), net[1:3], BLIND, threat) for kind in (Identity, Copy, Circle)}
    assert marks[Identity].suspect == ()
    assert any("the undefended model" in reason for reason in marks[Copy].suspect)
    assert any("not those of its adaptation" in reason for reason in marks[Circle].suspect)
    assert marks[Circle].diagnostics["unrolled_gap"] == pytest.approx(1)


def test_a_static_evaluation_is_the_old_one_bit_for_bit(net):
    threat = ThreatModel(eps=4 / 255, knowledge="hand_prompt")
    old = evaluate(net[0], net[1:3], "pgd(steps=5)", threat, source=net[0])
    static = evaluate(Identity(net[0]), net[1:3], "pgd(steps=5)", dataclasses.replace(threat, knowledge="undefended"))
    for (name, column), (other, again) in zip(old.outcomes.columns(), static.outcomes.columns(), strict=True):
        assert name == other and np.array_equal(column, again), name


def test_only_those_that_cheap_members_leave_go_on_and_a_budget_bounds_the_passes(net):
    seen = []

    def counted(x):
        seen.append(len(x))
        return net[0](x)

    defence = Identity(counted)
    found = run(SHORT, defence, *net[1:3], ThreatModel(eps=4 / 255), net[3])
    columns = [column for name, column in found.columns.items() if name.startswith("broken_")]
    assert all(bool((later >= earlier).all()) for earlier, later in pairwise(columns))
    assert abs(found.forwards - sum(seen)) <= 3 * N  # but for clean predictions and the measured marks
    assert found.forwards < N * (10 * 8 + 50)
    found = run(SHORT.replace(")", ", budget=60)"), Identity(net[0]), *net[1:3], ThreatModel(eps=1 / 255), net[3])
    assert found.effective["out_of_budget"] == "transfer"
    assert found.forwards + found.backwards < 2 * 60 * N


def test_the_model_never_sees_more_images_than_a_batch(net):
    largest = []

    class Watched(nn.Module):
        def forward(self, x):
            largest.append(len(x))
            return net[0](x)

    class Views(Resize):
        width = 4

        def predict(self, x, noise):
            return self.logits(x.repeat(4, 1, 1, 1)).view(4, len(x), -1).mean(0)

    evaluate(Views(Watched()), [part[:20] for part in net[1:3]], BLIND, "Linf 4/255", batch_size=8)
    assert max(largest) <= 8


def test_random_defences_are_judged_by_the_majority_of_draws_that_nobody_attacked(net):
    measured = evaluate(Resize(net[0]), [part[:20] for part in net[1:3]], BLIND, "Linf 4/255")
    share, broken = measured.outcomes.extra["share"], measured.outcomes.broken
    assert set(np.round(share * REPEATS).astype(int)) <= set(range(REPEATS + 1)) and ((share > 0.5) == ~broken).all()
    assert measured.effective["eot"] == 1 and measured.effective["draw_agreement"] > 0.99  # its draws are all alike

    silent = make_defence("smoothed(samples=3)", net[0])  # three votes are too few: it always abstains
    nobody = evaluate(silent, [part[:4] for part in net[1:3]], BLIND, "Linf 4/255").outcomes
    assert nobody.broken.all() and not nobody.extra["share"].any()

    draws = []

    class Told(Resize):
        def drawn(self, draw, x):
            draws.append(draw)
            return super().drawn(draw, x)

    evaluate(Told(net[0]), [part[:4] for part in net[1:3]], BLIND, "Linf 4/255")
    draws = [draw for draw in draws if draw]
    kinds = {draw[0] for draw in draws}
    assert "verdict" in kinds and "attack" in kinds
    assert sum(draw[0] == "attack" for draw in draws) == len({draw for draw in draws if draw[0] == "attack"})


@pytest.mark.parametrize(("again", "standing"), [(0.6, 1), (0.2, 1), (0.0, 0)])
def test_what_settles_a_sample_of_a_random_defence_is_seen_twice(again, standing, net, monkeypatch):
    # Of the image, then of a point: by three draws, by fifteen, by fifteen others.
    shares = iter([1.0, 0.0, 0.0, again])

    def judge(hunt, rows, x, repeats):
        share = torch.full((len(rows),), next(shares))
        return share, 0.5 - share

    monkeypatch.setattr(_Hunt, "judge", judge)
    meter, x, y = Meter(Attacked(Resize(net[0])), persist=True), net[1][:1], net[2][:1]
    with attacking(meter, x, y, ThreatModel(eps=4 / 255), ["0"], 0) as search:
        hunt = _Hunt(search, iterations=1, near=1, targets=1, draws=1, budget=1000)
        hunt.offer(hunt.rows(), x)
        assert search.columns["selected"].tolist() == pytest.approx([again]) and len(hunt.rows()) == standing


def test_the_majority_is_the_largest_of_the_mean_logits():
    each = torch.tensor([[[9.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
    assert majority(each).argmax(1).tolist() == [1]
    assert torch.equal(majority(each[:1]), each[0])
    assert torch.allclose(majority(each)[:, 0], each.mean(0)[:, 0])


def test_a_gate_is_held_off_and_the_penalty_has_the_gradient_that_it_says(net):
    undefended, gated = robust(net[0], net, "worst(steps=10)", 6), Guarded(net[0])
    without = robust(gated, net, BLIND, 6)
    assert robust(gated, net, SHORT.replace(")", ", order=('transfer', 'straight', 'replay', 'gate'))"), 6) <= without
    assert without <= undefended + 0.01

    x, y = net[1][:3], net[2][:3]
    meter = _Hinged(gated)
    meter.defence, meter.weight, meter._scale = gated, 2.0, torch.ones(3)
    _, f, g = meter.gradient(x, lambda z, rows: margin(z, y[rows]), torch.arange(3))
    _, plain, slope = Meter(gated).gradient(x, margin, y)
    h, steep = _slope(lambda x: gated.hinge(x, ()), x)
    assert torch.allclose(f, plain - 2 * h) and torch.allclose(g, slope - 2 * steep)


@pytest.mark.parametrize("passes", [400, 1200])
def test_a_killed_attack_goes_on_where_it_was(passes, net, killed_after, tmp_path):
    few = [part[:30] for part in net[1:3]]
    whole = run(BLIND, Identity(net[0]), *few, ThreatModel(eps=4 / 255), net[3][:30])
    with pytest.raises(KeyboardInterrupt):
        run(BLIND, Identity(killed_after(net[0], passes)), *few, ThreatModel(eps=4 / 255), net[3][:30],
            checkpoint=tmp_path)  # fmt: skip
    again = run(BLIND, Identity(net[0]), *few, ThreatModel(eps=4 / 255), net[3][:30], checkpoint=tmp_path)
    assert torch.equal(again.broken, whole.broken) and torch.equal(again.adversarials, whole.adversarials)


def test_shards_find_what_the_whole_does(net):
    threat = ThreatModel(eps=4 / 255)
    whole = run(BLIND, Copy(net[0]), *net[1:3], threat, net[3])
    halves = [run(BLIND, Copy(net[0]), net[1][cut], net[2][cut], threat, net[3][cut])
              for cut in (slice(0, 50), slice(50, N))]  # fmt: skip
    assert torch.equal(torch.cat([half.broken for half in halves]), whole.broken)


def test_what_an_attacker_gets_of_a_random_defence_is_new_at_every_gradient(net):
    attacked, x = Attacked(Resize(net[0])), net[1][:4].clone().requires_grad_()
    passes = [attacked.defence.drawn(("attack", place), x) for place in range(9)]
    assert len(set(passes)) > 1 and attacked(x).requires_grad and attacked._calls == 1
    with torch.no_grad():
        assert torch.equal(attacked(x), attacked(x)) and torch.equal(
            attacked(x), Verdict(Resize(net[0]), "selection")(x)
        )
