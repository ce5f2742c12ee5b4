"""Cells from the JSON of records, thousands of them: what equal records repeat is checked and built once.

Few backbones, sets and recipes differ between the records of a store. Equal JSON stands for the same spec, which then
also keeps its canonical form.
"""

import marshal
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache, lru_cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from apd_bench.core.identity import is_recorded
from apd_bench.core.specs import (
    AttackSpec,
    BackboneSpec,
    Cell,
    DatasetSpec,
    DefenceSpec,
    Fit,
    MethodRecipe,
    ThreatModel,
)
from apd_bench.core.targets import names_code

Spec = TypeVar("Spec")
_LARGEST = 1e300
_KINDS: dict[str, type] = {"backbone": BackboneSpec, "dataset": DatasetSpec, "method": MethodRecipe}
_NAMES = ("name", "learner", "objective", "source")  # of the last, that of a threat is looked up


class Parts:
    """What the records of a store have in common; one instance serves the reading of all of them."""

    def __init__(self) -> None:
        self._specs: dict[tuple[type, bytes], Any] = {}
        self._fits: dict[tuple[Any, ...], Fit] = {}
        self._environments: dict[bytes, Any] = {}

    def environment(self, data: Any) -> Any:
        """`data`, or the equal one that was read before."""
        return self._environments.setdefault(_key(data), data)

    def cell(self, data: Mapping[str, Any]) -> Cell:
        """The cell behind `plain(cell)`; raises TypeError, KeyError or ValueError for anything else."""
        source, defence = data.get("source"), data.get("defence")
        nested = {
            "fit": self._fit(data["fit"]),
            "source": None if source is None else self._fit(source),
            "dataset": self._spec(DatasetSpec, data["dataset"]),
            "threat": self._spec(ThreatModel, data["threat"]),
            "attack": self._spec(AttackSpec, data["attack"]),
            "defence": None if defence is None else self._spec(DefenceSpec, defence),
        }
        return Cell(**{**_values(Cell, data), **nested})

    def _fit(self, data: Mapping[str, Any]) -> Fit:
        specs: dict[str, Any] = {name: self._spec(kind, data[name]) for name, kind in _KINDS.items()}
        own = {name: value for name, value in data.items() if name not in _KINDS}
        key = (*map(id, specs.values()), _key(own))  # the specs are kept, so no other object gets their place
        if key not in self._fits:
            self._fits[key] = Fit(**_values(Fit, own), **specs)
        return self._fits[key]

    def _spec(self, kind: type[Spec], data: Any) -> Spec:
        key = (kind, _key(data))
        found: Spec | None = self._specs.get(key)
        if found is None:
            found = kind(**_values(kind, data))
            if any(names_code(str(getattr(found, item, None) or "")) for item in _NAMES):
                raise ValueError(f"a {kind.__name__} of it has the name of a Python file")
            self._specs[key] = found
        return found


def _key(data: Any) -> bytes:
    """Bytes that only equal JSON values share, 1 and 1.0 apart."""
    return marshal.dumps(data, 2)  # the last version without references, which would depend on who else holds a value


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind) if is_recorded(item)}


def _values(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec as their types say; raises TypeError for one that no record has, or of another type."""
    hints, values = _hints(kind), {}
    for name, value in data.items():
        if name not in hints:
            raise TypeError(f"{kind.__name__} has no field '{name}'")
        if not is_of(value, hints[name]):
            raise TypeError(f"the {name} of a {kind.__name__} cannot be {value!r:.60}")
        values[name] = tuple(value) if type(value) is list and get_origin(hints[name]) is tuple else value
    return values


def is_of(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of the type `hint`; a list counts as a tuple, a dictionary as any spec."""
    return _check_of(hint)(value)


@cache
def _check_of(hint: Any) -> Callable[[Any], bool]:
    origin, inner = get_origin(hint), [_check_of(item) for item in get_args(hint) if item is not Ellipsis]
    if hint is Any:
        return lambda value: True
    if origin in (Union, UnionType):
        return lambda value: any(check(value) for check in inner)
    if hint is type(None):
        return lambda value: value is None
    if hint is float:
        return lambda value: type(value) in (int, float) and abs(value) < _LARGEST  # so neither NaN nor infinite
    if hint in (str, int, bool):
        return lambda value: type(value) is hint
    if origin in (tuple, list):
        return lambda value: isinstance(value, (list, tuple)) and all(map(inner[0], value))
    if origin is not None and issubclass(origin, Mapping):
        return lambda value: isinstance(value, dict) and all(map(inner[1], value.values()))
    return lambda value: isinstance(value, dict)
