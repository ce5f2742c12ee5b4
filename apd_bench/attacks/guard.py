"""Everything an attack might disturb, as it was before: flags, random numbers, log handlers."""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside: `model` in eval mode and frozen, ordinary autograd, a fork of the random state. After: all as before.

    A model that is not a module cannot be switched to eval mode from outside; the repeat-prediction diagnostic tells
    when that matters.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(_random_state())
        if isinstance(model, nn.Module):
            stack.enter_context(_frozen(model))
        yield


@contextmanager
def captured_log(name: str) -> Iterator[list[str]]:
    """Collects the warnings that the logger `name` gets, and keeps them from everyone else meanwhile."""
    logger, lines = logging.getLogger(name), list[str]()

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    before = (logger.level, logger.propagate, logger.handlers[:], logger.disabled)
    logger.handlers, logger.propagate, logger.disabled = [Collect(logging.WARNING)], False, False
    logger.setLevel(logging.WARNING)
    try:
        yield lines
    finally:
        logger.setLevel(before[0])
        logger.propagate, logger.handlers, logger.disabled = before[1:]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    learnable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for module, _ in modes:
            module.training = False
        model.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in learnable:
            parameter.requires_grad_(True)


@contextmanager
def _random_state() -> Iterator[None]:
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if cuda else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (the state that libraries may change)
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
