"""What every defence holds: each image for itself, a draw decides all, a prediction costs what the catalogue says."""

from dataclasses import replace

import pytest
import torch

from apd_bench.cli import main
from apd_bench.core.errors import UsageError
from apd_bench.core.options import RunOptions
from apd_bench.core.registry import DEFENCES
from apd_bench.core.specs import ThreatModel
from apd_bench.defences.parse import make_defence
from apd_bench.records.interning import Parts
from apd_bench.records.record import json_form
from apd_bench.runner.session import plan_of
from tests.defences.conftest import predict

FEW = dict.fromkeys(("mean_views", "tpt", "r_tpt", "tapt"), "(views=5)") | {"smoothed": "(samples=40, sigma=0.12)"}
ALL = [f"{name}{FEW.get(name, '')}" for name in DEFENCES.names()]


@pytest.fixture(params=ALL)
def defence(request, defended):
    return defended(request.param)


def test_an_image_alone_is_predicted_as_in_a_batch_and_a_draw_decides_everything(defence, tiny):
    x = tiny[1][:4]
    together = predict(defence, x)
    torch.testing.assert_close(torch.cat([predict(defence, x[[row]]) for row in range(4)]), together, atol=2e-4, rtol=0)
    torch.testing.assert_close(predict(defence, x.flip(0)).flip(0), together, atol=2e-4, rtol=0)
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


OWN = """
from apd_bench.plugin import Defence, DefenceEntry

class Mirror(Defence):
    def predict(self, x, noise):
        return (self.logits(x) + self.logits(x.flip(3))) / 2

class Batchwise(Defence):
    def predict(self, x, noise):
        return self.logits(x - x.mean(0, keepdim=True) / 2)

MIRROR = DefenceEntry("mirror", f"{__name__}:Mirror", "mean with the mirror image", cost={"": (2, 0)})
BATCHWISE = DefenceEntry("batchwise", f"{__name__}:Batchwise", "less the mean of the batch", cost={"": (3, 0)})
"""


def test_check_holds_a_defence_of_ones_own_to_the_contract(tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN)
    assert main(["check", f"{tmp_path}/own.py:MIRROR"]) == 0
    assert main(["check", f"{tmp_path}/own.py:BATCHWISE"]) == 1
    told = capsys.readouterr().out
    assert "FAIL  an image is predicted alone as in a batch" in told and "(1.0, 0.0) image passes" in told


def test_a_defended_cell_is_planned_beside_the_undefended_one_whose_id_stays():
    options = {"methods": ("zero_shot",), "datasets": ("food",), "attacks": ("pgd",), "limit": 4}
    plain = plan_of(RunOptions(**options)).cells
    cells = plan_of(RunOptions(**options, defences=("ttc", "clipure"))).cells
    assert {cell.id for cell in plain} < {cell.id for cell in cells} and len(cells) == 5
    named = [(cell.defence and cell.defence.name, cell.attack.name, cell.threat.knowledge) for cell in cells]
    assert ("ttc", "pgd", "undefended") in named and ("clipure_cos", "adaptive", "white_box") in named
    for cell in cells:
        data = json_form(cell, recorded=True)
        assert ("defence" in data) is (cell.defence is not None) and Parts().cell(data).id == cell.id
    with pytest.raises(UsageError, match="no defence"):
        replace(cells[-1], defence=None, threat=ThreatModel(eps=1 / 255, knowledge="undefended"))


def test_a_model_of_ones_own_stays_as_it_was():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.0), torch.nn.Linear(3 * 4 * 4, 3))
    make_defence("anti_adversary", model)(torch.rand(2, 3, 4, 4))
    assert model.training and all(weight.requires_grad and weight.grad is None for weight in model.parameters())
