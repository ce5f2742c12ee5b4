"""What makes two cells the same: the canonical form of a spec and its hash.

The canonical form holds everything that can change a number and nothing that cannot (device, paths, workers, batch
size, where the data lies). It is computed from specs alone, so that a planned cell and a finished record agree.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

IDENTITY_VERSION = 1
_DIGITS = 12
_KEPT = "_canonical_form"


def canonical(value: object) -> object:
    """`value` as plain JSON types with one spelling each; raises TypeError for anything that has no such form.

    Dataclasses are read through their `identity()` where they have one, else field by field. Floats that are whole
    numbers and integers are the same value; floats are cut to 12 significant digits, so 4/255 has one spelling.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return _number(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _of_spec(value)
    identity = getattr(value, "identity", None)
    if callable(identity):
        return canonical(identity())
    if isinstance(value, Mapping):
        return {str(key): canonical(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((canonical(item) for item in value), key=str)
    kind = "a path" if isinstance(value, PurePath) else type(value).__name__
    raise TypeError(f"{kind} has no place in an identity: {value!r}")


def digest(value: object, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of the canonical form."""
    text = json.dumps([IDENTITY_VERSION, canonical(value)], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything with a canonical form; the same parts give the same seed on every machine."""
    return int(digest(list(parts)), 16) & (2**63 - 1)


def _of_spec(spec: Any) -> object:
    """The form of a dataclass; a frozen one keeps it, since a grid of cells shares its backbones, sets and recipes."""
    kept = getattr(spec, "__dict__", {}).get(_KEPT)
    if kept is not None:
        return kept
    identity = getattr(spec, "identity", None)
    if callable(identity):
        form = canonical(identity())
    else:
        form = {field.name: canonical(getattr(spec, field.name)) for field in dataclasses.fields(spec)}
    if spec.__dataclass_params__.frozen and hasattr(spec, "__dict__"):
        object.__setattr__(spec, _KEPT, form)
    return form


def _number(value: float) -> int | float | str:
    if value != value or value in (float("inf"), float("-inf")):
        return repr(float(value))
    if float(value).is_integer() and abs(value) < 2**53:
        return int(value)
    return float(f"{value:.{_DIGITS}g}")
