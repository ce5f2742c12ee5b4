"""Batches of few sizes: the classes, and rows that fill up and change nothing for the real ones."""

import pytest
import torch

from apd_bench.attacks.meter import Meter
from apd_bench.attacks.padding import Accelerated, filled, size_class
from apd_bench.attacks.parse import parse_attack
from apd_bench.evaluation import evaluate_samples
from apd_bench.specs import ThreatModel


def test_the_size_classes_are_powers_of_two_and_three_times_as_much():
    assert [size_class(count, 1000) for count in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 17, 25, 33, 49, 65, 97)] == [
        2, 2, 3, 4, 6, 6, 8, 8, 12, 12, 16, 24, 32, 48, 64, 96, 128,
    ]  # fmt: skip
    assert len({size_class(count, 512) for count in range(1, 513)}) == 17


@pytest.mark.parametrize("limit", [1, 2, 7, 64, 100])
def test_a_class_holds_its_batch_and_stays_within_the_limit(limit):
    for count in range(1, limit + 1):
        size = size_class(count, limit)
        assert count <= size <= max(limit, 2)
        assert size <= max(1.5 * count, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_filled_rows_repeat_the_first_and_carry_no_gradient(count):
    x = torch.arange(float(count)).requires_grad_()
    batch = filled(x, 8)
    assert batch.tolist() == [float(place % count) for place in range(8)]
    batch.sum().backward()
    assert x.grad.tolist() == [1.0] * count


@pytest.mark.parametrize("classes", [True, False])
def test_logits_and_gradients_are_those_of_the_batch_as_it_is(classes, small_net):
    net, x, y, _ = small_net(n=24)
    sizes = []

    def fast(pixels):
        sizes.append(len(pixels))
        return net(pixels)

    plain, model = Meter(net), Meter(Accelerated(net, fast, limit=24, classes=classes))
    for count in (1, 2, 5, 9, 17, 24):
        now = y[:count]

        def loss(z, now=now):
            return z.logsumexp(1) - z.gather(1, now[:, None]).squeeze(1)

        for one, two in zip(plain.gradient(x[:count], loss), model.gradient(x[:count], loss), strict=True):
            assert torch.allclose(one, two, atol=1e-6)
            assert len(one) == len(two) == count
    assert sizes == ([2, 2, 6, 12, 24, 24] if classes else [2, 2, 5, 9, 17, 24])
    assert (model.forwards, model.backwards) == (plain.forwards, plain.backwards) == (58, 58)


def test_passes_without_a_gradient_are_the_plain_models(small_net):
    net, x, _, _ = small_net(n=3)

    def fast(pixels):
        raise AssertionError("asked for a gradient")

    meter = Meter(Accelerated(net, fast, limit=4, classes=True))
    assert torch.equal(meter.predict(x), net(x))
    assert len(meter.predict(x[:0])) == 0


def test_gradients_are_copies_that_the_next_pass_cannot_change(small_net):
    net, x, _, _ = small_net(n=4)
    kept = []

    def fast(pixels):
        class Shared(torch.autograd.Function):
            @staticmethod
            def forward(ctx, batch):
                return net(batch.detach())

            @staticmethod
            def backward(ctx, g):
                kept.append(torch.ones(4, 3, 12, 12))
                return kept[-1]

        return Shared.apply(pixels)

    g = Meter(Accelerated(net, fast, limit=4, classes=True)).gradient(x, lambda z: z.sum(1))[2]
    kept[0].zero_()
    assert (g == 1).all()


class Samples:
    """Labelled images as an evaluation reads them."""

    def __init__(self, x, y, ids):
        self.x, self.labels, self.ids = x, y, ids

    def __len__(self):
        return len(self.x)

    def pixels(self, indexes):
        return self.x[list(indexes)]


@pytest.mark.parametrize("attack", ["pgd(steps=10)", "cw(steps=10)", "worst.fast"])
def test_examples_of_a_wrong_twin_are_judged_by_the_model_itself(attack, small_net):
    net, x, y, ids = small_net(classes=4, n=24)
    samples, spec, threat = Samples(x, y, ids), parse_attack(attack), ThreatModel(eps=0.02)

    def shifted(pixels):  # calls some samples broken that are not
        z = net(pixels)
        return z - torch.nn.functional.one_hot(z.detach().argmax(1), 4) * 0.3

    model = Accelerated(net, shifted, limit=24, classes=True)
    plain = evaluate_samples(net, samples, spec, threat)
    found = evaluate_samples(net, samples, spec, threat, accelerated=model)
    assert found.effective["attacked_again"] > 0
    assert (found.outcomes.broken == (found.outcomes.adversarial_prediction != y.numpy())).all()
    assert 0 < plain.outcomes.broken.sum() < 24
    assert found.outcomes.broken.sum() >= plain.outcomes.broken.sum() - 1
