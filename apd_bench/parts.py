"""Cells from the JSON of records, thousands of them: what equal records repeat is built once.

Few backbones, sets and recipes differ between the records of a store. Equal ones become one spec, which then also keeps
its canonical form.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from typing import Any, TypeVar

from apd_bench.specs import AttackSpec, BackboneSpec, Cell, DatasetSpec, Fit, MethodRecipe, ThreatModel

Spec = TypeVar("Spec")
_KINDS: dict[str, type] = {"backbone": BackboneSpec, "dataset": DatasetSpec, "method": MethodRecipe}
_TUPLES = frozenset({"aliases", "offers", "needs", "exclude"})


class Parts:
    """What the records of a store have in common; one instance serves the reading of all of them."""

    def __init__(self) -> None:
        self._specs: dict[tuple[type, bytes], Any] = {}
        self._fits: dict[tuple[Any, ...], Fit] = {}

    def cell(self, data: Mapping[str, Any]) -> Cell:
        """The cell behind `plain(cell)`; raises TypeError, KeyError or ValueError for anything else."""
        source = data.get("source")
        nested = {
            "fit": self._fit(data["fit"]),
            "source": None if source is None else self._fit(source),
            "dataset": self._spec(DatasetSpec, data["dataset"]),
            "threat": self._spec(ThreatModel, data["threat"]),
            "attack": self._spec(AttackSpec, data["attack"]),
        }
        return Cell(**{**_values(data), **nested})

    def _fit(self, data: Mapping[str, Any]) -> Fit:
        specs: dict[str, Any] = {name: self._spec(kind, data[name]) for name, kind in _KINDS.items()}
        own = {name: value for name, value in data.items() if name not in _KINDS}
        key = (*map(id, specs.values()), _key(own))  # the specs are kept, so no other object gets their place
        if key not in self._fits:
            self._fits[key] = Fit(**_values(own), **specs)
        return self._fits[key]

    def _spec(self, kind: type[Spec], data: Any) -> Spec:
        key = (kind, _key(data))
        if key not in self._specs:
            self._specs[key] = kind(**_values(data))
        found: Spec = self._specs[key]
        return found


def _key(data: Any) -> bytes:
    """Bytes that only equal JSON values share, 1 and 1.0 apart."""
    return marshal.dumps(data, 2)  # the last version without references, which would depend on who else holds a value


def _values(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if key in _TUPLES else value for key, value in data.items()}
