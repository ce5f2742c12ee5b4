"""What every defence holds: each image for itself, a draw decides all, a prediction costs what the catalogue says."""

import pytest
import torch

from apd_bench.core.registry import DEFENCES

FEW = {"mean_views": "(views=5)", "tpt": "(views=5)", "r_tpt": "(views=5)", "smoothed": "(samples=40, sigma=0.12)"}
ALL = [f"{name}{FEW.get(name, '')}" for name in DEFENCES.names()]


@pytest.fixture(params=ALL)
def defence(request, defended):
    return defended(request.param)


def predict(defence, x, draw=(1,)):
    with torch.no_grad():
        return defence(x, draw)


def test_an_image_alone_is_predicted_as_in_a_batch_and_in_any_order(defence, tiny):
    x = tiny[1][:4]
    together = predict(defence, x)
    torch.testing.assert_close(torch.cat([predict(defence, x[[row]]) for row in range(4)]), together, atol=2e-4, rtol=0)
    torch.testing.assert_close(predict(defence, x.flip(0)).flip(0), together, atol=2e-4, rtol=0)


def test_a_draw_decides_everything_and_draws_differ_where_the_defence_says_so(defence, tiny):
    x = tiny[1][:4]
    first = predict(defence, x)
    assert torch.equal(first, predict(defence, x))
    assert torch.equal(first, predict(defence, x, (2,))) is not defence.draws


def test_a_prediction_costs_what_the_catalogue_says(defence, request, tiny):
    entry = DEFENCES.get(request.node.callspec.params["defence"].partition("(")[0])
    predict(defence, tiny[1][:3])
    assert (defence.forwards / 3, defence.backwards / 3) == entry.passes(defence.options)
    assert entry.defaults.keys() == entry.sources.keys() == defence.options.keys()


def test_an_adversary_gets_a_gradient_of_the_pixels_and_of_nothing_else(defence, tiny):
    x = tiny[1][:2].clone().requires_grad_()
    (g,) = torch.autograd.grad(defence(x, (1,)).amax(1).sum(), x)
    assert g.isfinite().all()
    assert not any(parameter.requires_grad for parameter in defence.parameters())
