"""`evaluate` for any callable: every form of data and threat, and one message for each mistake."""

import numpy as np
import pytest
import torch
from torch import nn

import apd_bench
from apd_bench.api import evaluate
from apd_bench.errors import UnknownName, UsageError
from apd_bench.specs import AttackSpec, ThreatModel


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


def test_it_is_the_public_name():
    assert apd_bench.evaluate is evaluate


def test_any_callable_and_any_form_of_data(case):
    net, x, y = case
    expected = evaluate(net, (x, y), "cw", "Linf 4/255")
    assert 0 < expected.robust_accuracy < expected.clean_accuracy == 1
    loader = [(x[i : i + 5], y[i : i + 5]) for i in range(0, 12, 5)]
    for data in ([x, y], (x.numpy(), y.numpy()), loader, iter(loader)):
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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threat": "8"}, "Did you mean 8/255"),
        ({"threat": 8}, "Did you mean 8/255"),
        ({"threat": -0.1}, "outside [0, 1]"),
        ({"threat": "a lot"}, "is not a number"),
        ({"threat": "L1 4/255"}, "Norm 'L1' is not one of: Linf, L2"),
        ({"attack": "pdg"}, "Did you mean 'pgd'"),
        ({"attack": "pgd(step_size=1)"}, "option of pgd 'step_size'"),
        ({"attack": AttackSpec(name="pgd", options={"steps": 0})}, "at least 1"),
        ({"attack": "torchattacks:CW"}, "cw-l2"),
        ({"model": "vit"}, "not a callable"),
        ({"data": 5}, "The data is a int"),
        ({"data": [1, 2, 3]}, "A batch of the data is a int"),
    ],
)
def test_a_mistake_gets_one_message(change, said, case):
    net, x, y = case
    asked = {"model": net, "data": (x, y), "attack": "pgd", "threat": "4/255"} | change
    with pytest.raises(UsageError if "CW" not in str(change.get("attack")) else Exception) as caught:
        evaluate(asked["model"], asked["data"], asked["attack"], asked["threat"])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (lambda x: (x * 255).to(torch.uint8), lambda y: y, "Pass pixels.float() / 255"),
        (lambda x: (x * 255).to(torch.uint8).numpy(), lambda y: y, "Pass pixels.float() / 255"),
        (lambda x: (x - 0.5) / 0.2, lambda y: y, "normalise inside the model"),
        (lambda x: x, lambda y: y + 1, "Label 3 is out of range"),
        (lambda x: x, lambda y: y[:5], "there are 12 images"),
    ],
)
def test_wrong_pixels_and_labels(x, y, said, case):
    net, images, labels = case
    images, labels = x(images), y(labels)
    if isinstance(images, np.ndarray):
        labels = labels.numpy()
    with pytest.raises(UsageError) as caught:
        evaluate(net, (images, labels), "pgd", "4/255")
    assert said in str(caught.value)


def test_probabilities_and_nan_are_refused(case):
    net, x, y = case
    with pytest.raises(UsageError, match="probabilities"):
        evaluate(lambda pixels: net(pixels).softmax(1), (x, y), "pgd", "4/255")
    with pytest.raises(UsageError, match="NaN"):
        evaluate(lambda pixels: net(pixels) / 0 * 0, (x, y), "pgd", "4/255")


def test_an_unknown_attack_names_the_command(case):
    with pytest.raises(UnknownName, match="apd-bench list attacks"):
        evaluate(case[0], case[1:], "zzz", "4/255")


def test_transfer_takes_its_source(case):
    net, x, y = case
    threat = ThreatModel(eps=4 / 255, knowledge="transfer", source="net")
    assert evaluate(net, (x, y), "pgd", threat, source=net).robust_accuracy < 1
