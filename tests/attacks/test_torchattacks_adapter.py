"""torchattacks behind the adapter: any of its attacks, our verdicts, our errors."""

import pytest
import torch

from apd_bench import attacks
from apd_bench.core.errors import IncompatibleChoice, UnknownName, UsageError
from apd_bench.core.specs import ThreatModel


def run(text, case, threat=None):
    net, x, y, ids = case
    return attacks.run(text, net, x, y, threat or ThreatModel(eps=6 / 255), ids)


@pytest.fixture
def case(small_net):
    pytest.importorskip("torchattacks")
    return small_net(classes=5, n=8)


@pytest.mark.parametrize(
    "text",
    ["torchattacks:PGD(steps=10)", "torchattacks:FGSM", "torchattacks:DIFGSM", "torchattacks:APGD", "torchattacks:FAB",
     "torchattacks:Square(n_queries=20)", "torchattacks:TPGD", "torchattacks:DeepFool(steps=5)"],
)  # fmt: skip
def test_its_points_keep_the_budget_and_the_verdicts_are_ours(text, case):
    net, x, y, _ = case
    result = run(text, case)
    assert (result.adversarials - x).abs().max() <= 6 / 255 + 1e-6
    assert torch.equal(net(result.adversarials).argmax(1) != y, result.broken)
    assert result.forwards > len(x)
    assert torch.equal(run(text, case).adversarials, result.adversarials)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_pgd_is_as_strong_as_ours_and_misclassified_samples_are_never_sent(case):
    net, x, y, ids = case
    ours = attacks.run("pgd", net, x, y, ThreatModel(eps=8 / 255), ids)
    theirs = run(f"torchattacks:PGD(steps=40, alpha={1 / 255})", case, ThreatModel(eps=8 / 255))
    assert ours.broken.any() and int(ours.broken.sum()) >= int(theirs.broken.sum())
    net, x, y, ids = case
    result = run("torchattacks:PGD", (net, x, (y + 1) % 5, ids))
    assert result.backwards == 0 and result.broken.all() and torch.equal(result.adversarials, x)


def test_options_are_checked_against_the_library(case):
    with pytest.raises(UnknownName, match="Did you mean 'steps'"):
        run("torchattacks:PGD(step=3)", case)
    with pytest.raises(UnknownName, match="option of torchattacks:PGD 'seed'"):
        run("torchattacks:PGD(seed=3)", case)
    with pytest.raises(UsageError, match="The budget is no option of torchattacks:PGD"):
        run("torchattacks:PGD(eps=0.3)", case)
    with pytest.raises(IncompatibleChoice, match="fails on 5 classes"):
        run("torchattacks:PGD(steps='many')", case)
