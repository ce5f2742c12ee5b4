"""`evaluate` for any callable: every form of data and threat, and one message for each mistake."""

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn

from apd_bench import evaluate
from apd_bench.api import _device_of
from apd_bench.core.errors import UsageError, UserError
from apd_bench.core.specs import AttackSpec, ThreatModel


@pytest.fixture(scope="module")
def case():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (12, 3, 6, 6), generator=generator).float() / 255
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
    return net, x, net(x).argmax(1)


class Named:
    def __init__(self, x, y):
        self.ids, self.labels, self.x = tuple(f"n{i}" for i in range(len(x))), y, x

    def __len__(self):
        return len(self.ids)

    def pixels(self, indexes):
        return self.x[torch.as_tensor(indexes)]


def test_any_callable_and_any_form_of_data(case):
    net, x, y = case
    expected = evaluate(net, (x, y), "cw", "Linf 4/255")
    assert 0 < expected.robust_accuracy < expected.clean_accuracy == 1
    loader = [(x[i : i + 5], y[i : i + 5]) for i in range(0, 12, 5)]
    for data in ([x, y], (x.numpy(), y.numpy()), (x, y.tolist()), loader, iter(loader)):
        result = evaluate(lambda pixels: net(pixels), data, "cw", "Linf 4/255")
        assert result.outcomes.to_bytes() == expected.outcomes.to_bytes()
    named = evaluate(net, Named(x, y), "cw", "Linf 4/255")
    assert named.outcomes.sample_id[3] == "n3"
    loaded = type("Loaded", (), {"test": Named(x, y), "classes": ("a", "b", "c")})()
    assert evaluate(net, loaded, "cw", "Linf 4/255").metrics == named.metrics


@pytest.mark.parametrize("threat", ["Linf 4/255", "4/255", 4 / 255, "linf 4/255", ThreatModel(eps=4 / 255)])
def test_every_spelling_of_a_threat(threat, case):
    net, x, y = case
    result = evaluate(net, (x, y), AttackSpec(name="cw"), threat)
    assert result.robust_accuracy == evaluate(net, (x, y), "cw", "Linf 4/255").robust_accuracy
    assert evaluate(net, (x, y), "cw", "L2 0.3").outcomes.extra["norm"].max() <= 0.3 + 1e-6


@pytest.mark.parametrize(("change", "said"), [
    ({"threat": "8"}, "Did you mean 8/255"),
    ({"threat": 8}, "Did you mean 8/255"),
    ({"threat": -0.1}, "outside [0, 1]"),
    ({"threat": "a lot"}, "is not a number"),
    ({"threat": "L1 4/255"}, "Norm 'L1' is not one of: Linf, L2"),
    ({"attack": "pdg"}, "Did you mean 'pgd'"),
    ({"attack": "zzz"}, "apd-bench list attacks"),
    *(({"attack": attack}, "The attack is a") for attack in (3, None, ["pgd"])),
    ({"attack": "pgd(step_size=1)"}, "option of pgd 'step_size'"),
    ({"attack": AttackSpec(name="pgd", options={"steps": 0})}, "at least 1"),
    ({"attack": "torchattacks:CW"}, "cw-l2"),
    ({"model": "vit"}, "not a callable"),
    ({"data": 5}, "The data is a int"),
    ({"data": [1, 2, 3]}, "A batch of the data is a int"),
    ({"data": []}, "There are no samples"),
    ({"threat": "L2 3/255"}, "usual L2 budget is 0.5"),
    ({"batch_size": 0}, "A batch size is a whole number of at least 1, not 0"),
    ({"batch_size": "8"}, "not '8'"),
    ({"batch_size": 2.5}, "not 2.5"),
    ({"device": "gpu"}, "Device 'gpu' is not one of"),
    ({"device": "cuda:99"}, "There is no device 'cuda:99' here"),
])  # fmt: skip
def test_a_mistake_gets_one_message(change, said, case):
    net, x, y = case
    asked = {"model": net, "data": (x, y), "attack": "pgd", "threat": "4/255"} | change
    with pytest.raises(UserError) as caught:
        evaluate(**asked)
    assert said in str(caught.value)


@pytest.mark.parametrize(("x", "y", "said"), [
    (lambda x: (x * 255).to(torch.uint8), lambda y: y, "Pass pixels.float() / 255"),
    (lambda x: (x * 255).to(torch.uint8).numpy(), lambda y: y, "Pass pixels.float() / 255"),
    (lambda x: (x - 0.5) / 0.2, lambda y: y, "normalise inside the model"),
    (lambda x: x, lambda y: y + 1, "Label 3 is out of range"),
    (lambda x: x, lambda y: y[:5], "there are 12 images"),
    (lambda x: x, lambda y: y[:0], "there are 12 images"),
    (lambda x: x, lambda y: nn.functional.one_hot(y), "Pass labels.argmax(1)"),
    (lambda x: x, lambda y: ["cat"] * 12, "Labels are a list that is no array of numbers"),
    (lambda x: x, lambda y: [0.5] * 12, "Pass labels.long()"),
    (lambda x: x[0], lambda y: y[:1], "DataLoader"),
])  # fmt: skip
def test_wrong_pixels_and_labels(x, y, said, case):
    net, images, labels = case
    images, labels = x(images), y(labels)
    if isinstance(images, np.ndarray):
        labels = labels.numpy()
    with pytest.raises(UsageError) as caught:
        evaluate(net, (images, labels), "pgd", "4/255")
    assert said in str(caught.value)


def test_probabilities_and_nan_are_refused_and_an_error_of_the_model_stays_what_it_is(case):
    net, x, y = case
    with pytest.raises(UsageError, match="probabilities"):
        evaluate(lambda pixels: net(pixels).softmax(1), (x, y), "pgd", "4/255")
    for kind in (torch.float16, torch.bfloat16):
        with pytest.raises(UsageError, match="Return the logits before the softmax"):
            evaluate(lambda pixels, kind=kind: net(pixels).softmax(1).to(kind), (x, y), "pgd", "4/255")
    with pytest.raises(UsageError, match="NaN"):
        evaluate(lambda pixels: net(pixels) / 0 * 0, (x, y), "pgd", "4/255")

    def broken(pixels):
        raise RuntimeError("my own bug")

    with pytest.raises(RuntimeError, match="my own bug"):
        evaluate(broken, case[1:], "pgd")


@pytest.mark.parametrize("head", [torch.sigmoid, lambda z: torch.sigmoid(z).half(), lambda z: z.softmax(1).square()])
def test_outputs_within_0_and_1_are_suspect(head, case):
    net, x, y = case
    reasons = [evaluate(model, (x, y), "pgd(steps=2)").suspect for model in (lambda pixels: head(net(pixels)), net)]
    assert [any("all outputs lie in [0,1]" in reason for reason in found) for found in reasons] == [True, False]


class Hidden:
    """A callable that does not show its module."""

    def __init__(self, net):
        self.net = net

    def __call__(self, pixels):
        return self.net(pixels)


@pytest.mark.parametrize(("model", "said"), [
    (lambda net: copy.deepcopy(net).half(), "The model computes in float16; attacks hand it float32 pixels. Pass"),
    (lambda net: copy.deepcopy(net).bfloat16(), "The model computes in bfloat16"),
    (lambda net: copy.deepcopy(net).double(),
     "float64; attacks hand it float32 pixels. Pass model.float(), or convert inside: lambda x: model(x.double"),
    (lambda net: copy.deepcopy(net).half().forward, "another precision; attacks hand it float32 pixels"),
    (lambda net: Hidden(copy.deepcopy(net).to("meta")), "pixels on cpu. Leave out device="),
    (lambda net: nn.Sequential(nn.Flatten(), nn.Linear(27, 3)), "cannot take these pixels"),
])  # fmt: skip
def test_a_model_that_cannot_take_float32_pixels_of_this_device_gets_the_mend(model, said, case):
    net, x, y = case
    with pytest.raises(UsageError) as caught:
        evaluate(model(net), (x, y), "pgd")
    assert said in str(caught.value)


def test_transfer_takes_its_source(case):
    net, x, y = case
    threat = ThreatModel(eps=4 / 255, knowledge="transfer", source="net")
    assert evaluate(net, (x, y), "pgd", threat, source=net).robust_accuracy < 1


class Buffers(nn.Module):
    """A model without parameters."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.zeros(2, device="meta"))

    def logits(self, pixels):
        return self.weight * pixels


def test_the_device_is_that_of_the_module_behind_a_callable():
    net = Buffers()
    around = (net, net.logits, lambda pixels: net(pixels), functools.partial(net), functools.partial(max, net))
    assert {_device_of(model).type for model in around} == {"meta"}
    assert _device_of(lambda pixels: pixels) == _device_of(len) == torch.device("cpu")


def test_no_model_is_given_all_samples_at_once_without_a_batch_size():
    seen = []

    def model(pixels):
        seen.append(len(pixels))
        return pixels.flatten(1)[:, :3] * torch.tensor([3.0, 2.0, 1.0])

    x = torch.rand(250, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    evaluate(model, (x, torch.zeros(250, dtype=torch.int64)), "pgd(steps=2)", "Linf 4/255")
    assert max(seen) == 100
