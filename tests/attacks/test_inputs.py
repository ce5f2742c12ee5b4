"""Input that would make an answer wrong gets one message before any gradient."""

import pytest
import torch

from apd_bench import attacks
from apd_bench.core.errors import UsageError
from apd_bench.core.specs import ThreatModel

X, Y = torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 0, 1])


def model(x):
    return torch.stack([x.flatten(1).mean(1), 1 - x.flatten(1).mean(1)], 1) * 3


def attack(model=model, x=X, y=Y, ids="abcd"):
    return attacks.run("pgd(steps=2)", model, x, y, ThreatModel(eps=0.1), ids)


@pytest.mark.parametrize(("change", "said"), [
    ({"x": X * 255}, "Divide by 255"),
    ({"x": X.masked_fill(X > 0.9, float("nan"))}, "finite"),
    ({"x": X[0]}, "a batch is [B, C, H, W]"),
    ({"x": X.numpy()}, "not a torch tensor"),
    ({"y": Y.float()}, "whole numbers"),
    ({"y": Y[:3]}, "there are 4 images"),
    ({"y": torch.tensor([0, 1, 2, 1])}, "Label 2 is out of range: the model has 2 classes"),
    ({"y": torch.tensor([0, 1, -1, 1])}, "Label -1 is out of range"),
    ({"ids": "abc"}, "3 sample ids for 4 images"),
    ({"model": lambda x: model(x)[:, :1]}, "fewer than two classes"),
    ({"model": lambda x: model(x)[0]}, "logits are [4, K]"),
    ({"model": lambda x: model(x).argmax(1, keepdim=True).repeat(1, 2)}, "not floating-point"),
    ({"model": lambda x: {"logits": model(x)}}, "returned a dict"),
])  # fmt: skip
def test_one_clear_message(change, said):
    with pytest.raises(UsageError) as caught:
        attack(**change)
    assert said in str(caught.value)
