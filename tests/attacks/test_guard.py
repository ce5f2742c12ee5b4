"""Nothing of the model or the process is different after an attack."""

import logging
import random

import numpy as np
import torch
from torch import nn

from apd_bench.attacks.guard import captured_log, untouched


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


def test_inference_mode_outside_does_not_reach_inside():
    with torch.inference_mode(), untouched(lambda x: x):
        assert not torch.is_inference_mode_enabled()


def test_a_librarys_warnings_are_collected_and_its_logger_restored():
    logger = logging.getLogger("some-library")
    handler = logging.NullHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    with captured_log("some-library") as lines:
        logger.debug("no")
        logger.warning("yes")
    assert lines == ["yes"]
    assert logger.handlers == [handler] and logger.level == logging.ERROR and logger.propagate
    logger.removeHandler(handler)
