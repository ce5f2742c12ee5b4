"""What holds for every attack in the catalog, whatever it does inside."""

import copy
import logging
import random
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from apd_bench import attacks
from apd_bench.attacks import catalog
from apd_bench.attacks.guard import untouched
from apd_bench.attacks.meter import Meter
from apd_bench.core.specs import AttackSpec, ThreatModel
from apd_bench.evaluation.audit import audit

ENTRIES = {entry.name: entry for entry in catalog.builtin()}
SHORT = {"iterations": 4, "queries": 12, "steps": 6, "searches": 1}
NAMES = [name for name in ENTRIES if name not in ("autoattack.ce-t", "autoattack.apgd-ce", "autoattack.apgd-t")]
THREATS = {"Linf": ThreatModel(eps=4 / 255), "L2": ThreatModel(eps=0.3, norm="L2")}


def run(name, model, x, y, ids, threat=THREATS["Linf"], seed=0, **changes):
    options = {key: value for key, value in SHORT.items() if key in ENTRIES[name].defaults} | changes
    return attacks.run(AttackSpec(name=name, options=options), model, x, y, threat, ids, seed)


@pytest.fixture(scope="module")
def case(small_net):
    net, x, y, ids = small_net(classes=5, n=10, size=10)
    y = y.clone()
    y[::5] = (y[::5] + 1) % 5  # two samples are misclassified by themselves
    return net, x, y, ids


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("name", NAMES)
def test_budget_verdicts_and_counts(name, norm, case):
    net, x, y, ids = case
    wrong = net(x).argmax(1) != y
    calls = []

    def counted(pixels):
        calls.append(len(pixels))
        assert not (pixels.requires_grad and not len(pixels))
        return net(pixels)

    result = run(name, counted, x, y, ids, THREATS[norm])
    assert result.forwards == sum(calls)
    assert result.broken[wrong].all()
    assert torch.equal(result.adversarials[wrong], x[wrong])
    found = audit(Meter(net), result, x, y, THREATS[norm], kind=ENTRIES[name].kind)
    assert found.flips == 0
    assert (net(result.adversarials).argmax(1) != y).equal(result.broken)
    if ENTRIES[name].kind == "ball":
        assert found.norm.max() <= THREATS[norm].eps + 1e-6
        assert found.broken.equal(result.broken)
    if not ENTRIES[name].gradient:
        assert result.backwards == 0
    members = [result.columns[f"broken_{name}"] for name in result.effective.get("members", ())]
    for before, after in pairwise([*members, result.broken]):
        assert (after | ~before).all()  # a member only adds
    assert not members or members[-1].equal(result.broken)


@pytest.mark.parametrize("name", NAMES)
def test_misclassified_samples_cost_one_forward_and_no_gradient(name, case):
    net, x, y, ids = case
    y = (net(x).argmax(1) + 1) % 5
    result = run(name, net, x, y, ids)
    assert (result.forwards, result.backwards) == (len(x), 0)
    assert result.broken.all() and torch.equal(result.adversarials, x)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits(name, case):
    first, second = run(name, *case), run(name, *case)
    assert torch.equal(first.adversarials, second.adversarials)
    assert (first.forwards, first.backwards) == (second.forwards, second.backwards)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_changed(name, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net, x, y, ids = case
    net = copy.deepcopy(net).train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    pixels, labels = x.clone(), y.clone()
    logger = logging.getLogger("auto-attack")

    def tracer(frame, event, argument):
        return None

    def world():
        return (
            torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(),  # noqa: NPY002
            [module.training for module in net.modules()], [item.requires_grad for item in net.parameters()],
            logger.handlers[:], logger.level, logger.propagate, logger.disabled, logging.getLogger().handlers[:],
            torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), list(tmp_path.iterdir()),
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.is_anomaly_enabled(),
            torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        )  # fmt: skip

    outside, trace = world(), sys.gettrace()
    sys.settrace(tracer)
    try:
        run(name, net, x, y, ids)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(trace)
    assert world() == outside
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(x, pixels) and torch.equal(y, labels) and not x.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_odd_batches_and_modes(name, case):
    net, x, y, ids = case
    plain = run(name, net, x, y, ids)
    assert not plain.adversarials.requires_grad
    with torch.no_grad():
        assert torch.equal(run(name, net, x, y, ids).adversarials, plain.adversarials)
    with torch.inference_mode():
        inside = run(name, net, x.clone(), y.clone(), ids)
    assert torch.equal(inside.broken, plain.broken)
    strided = run(name, net, x.to(memory_format=torch.channels_last), y, ids)
    assert torch.equal(strided.adversarials, plain.adversarials)
    one = run(name, net, x[1:2], y[1:2], ids[1:2])
    assert one.adversarials.shape == (1, 3, 10, 10)
    none = run(name, net, x[:0], y[:0], [])
    assert none.adversarials.shape == (0, 3, 10, 10) and (none.forwards, none.backwards) == (0, 0)


OWN = [name for name in NAMES if not name.startswith("autoattack")]


@pytest.mark.parametrize("name", OWN)
def test_verdicts_do_not_depend_on_the_batch(name, case):
    """Reversed order, batches of 3, a meter that splits, against one batch of 10; pixels may differ by rounding."""
    net, x, y, ids = case
    sizes = []

    def model(pixels):
        sizes.append(len(pixels))
        return net(pixels)

    whole = run(name, net, x, y, ids)
    back = run(name, net, x.flip(0), y.flip(0), ids[::-1])
    assert torch.equal(back.broken.flip(0), whole.broken)
    split = run(name, Meter(model, batch_size=3), x, y, ids)
    assert torch.equal(split.broken, whole.broken)
    assert max(sizes) == 3 or ENTRIES[name].kind == "distance"
    parts = [run(name, net, x[i : i + 3], y[i : i + 3], ids[i : i + 3]) for i in range(0, 10, 3)]
    assert torch.equal(torch.cat([part.broken for part in parts]), whole.broken)
    assert sum(part.backwards for part in parts) == whole.backwards


@pytest.mark.parametrize("name", ["pgd", "cw", "apgd-ce", "apgd-t", "worst", "autoattack"])
def test_an_all_breakable_batch_costs_a_handful_of_gradients(name, case):
    net, x, y, ids = case
    steps = {"steps": 40} if "steps" in ENTRIES[name].defaults else {}
    result = run(name, net, x, y, ids, ThreatModel(eps=0.5), **steps)
    assert result.broken.all()
    assert result.backwards <= 5 * len(x)


def test_a_budget_of_zero_leaves_the_images_alone(case):
    net, x, y, ids = case
    for name in ("pgd", "worst", "apgd-t", "autoattack", "noise"):
        result = run(name, net, x, y, ids, ThreatModel(eps=0))
        assert torch.equal(result.adversarials, x) and result.backwards == 0
        assert torch.equal(result.broken, net(x).argmax(1) != y)


def test_flags_are_restored_module_by_module():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    net[1].eval()
    net[0].bias.requires_grad_(False)
    with untouched(net):
        assert not any(module.training for module in net.modules())
        assert not any(parameter.requires_grad for parameter in net.parameters())
    assert [module.training for module in net.modules()] == [True, True, False, True]
    assert [parameter.requires_grad for parameter in net.parameters()] == [True, False, True, True]


def test_random_states_are_restored_also_after_an_error():
    def states():
        numpy = np.random.get_state()  # noqa: NPY002
        return torch.get_rng_state().tolist(), random.getstate(), numpy[1].tolist(), numpy[2]

    before = states()
    try:
        with untouched(lambda x: x):
            torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
            torch.rand(3)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert states() == before
