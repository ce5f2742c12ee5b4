"""Any attack of the torchattacks library as `torchattacks:NAME(options)`, an optional extra because of its pins.

The library sees float32 logits of an evaluated, frozen model; the random state is forked and seeded; its points are
projected and judged here. Its AutoAttack and CW are refused by the catalog.
"""

import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from apd_bench.attacks.meter import Meter
from apd_bench.attacks.search import Search
from apd_bench.core.errors import IncompatibleChoice, MissingPrerequisite, unknown_name

_OURS = ("model", "eps", "norm", "n_classes", "seed", "verbose")


def torchattack(search: Search, *, library_name: str, **options: Any) -> None:
    """What torchattacks' `library_name` finds within the threat; eps, norm, seed and class count come from the cell.

    Raises UnknownName for an option that the attack does not take, IncompatibleChoice where the library fails.
    """
    build: Callable[..., Any] | None = getattr(import_module("torchattacks"), library_name, None)
    if build is None:
        raise MissingPrerequisite(f"This version of torchattacks has no attack '{library_name}'.")
    parameters = inspect.signature(build).parameters
    own = [name for name in parameters if name not in _OURS]
    for name in options:
        if name not in own:
            raise unknown_name(f"option of torchattacks:{library_name}", name, own)
    given = {
        "eps": search.threat.eps, "norm": search.threat.norm, "n_classes": search.num_classes, "seed": search.seed,
        "verbose": False,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if name in parameters} | options
    torch.manual_seed(search.seed)
    for rows in search.batches():
        x = search.region.take(rows).project(_points(build, search, rows, given, library_name))
        search.see(rows, x, search.meter.predict(x))
    plain = {name: value for name, value in given.items() if isinstance(value, (bool, int, float, str))}
    search.effective |= {"package": f"torchattacks {version('torchattacks')}", "options": plain}


class _AsModule(nn.Module):
    """The meter as the module that the library asks for; it finds the device by the only parameter."""

    def __init__(self, meter: Meter, device: torch.device) -> None:
        super().__init__()
        self.meter = meter
        self.place = nn.Parameter(torch.zeros((), device=device), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.meter(x)


def _points(build: Callable[..., Any], search: Search, rows: Tensor, given: dict[str, Any], name: str) -> Tensor:
    x, y = search.region.x0[rows].clone(), search.labels[rows].clone()
    with torch.enable_grad():
        try:
            found = build(_AsModule(search.meter, x.device), **given)(x, y)
        except (TypeError, IndexError, ValueError, AttributeError) as error:
            raise IncompatibleChoice(
                f"torchattacks:{name} fails on {search.num_classes} classes with {given}: "
                f"{type(error).__name__}: {error}."
            ) from error
    points: Tensor = found[0] if isinstance(found, tuple) else found
    return points.detach().to(x).nan_to_num(nan=0.5)
