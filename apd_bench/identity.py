"""What makes two cells the same: the canonical form of a spec and its hash.

The canonical form holds everything that can change a number and nothing that cannot (device, paths, workers, batch
size, where the data lies). It is computed from specs alone, so that a planned cell and a finished record agree.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from json.encoder import encode_basestring
from pathlib import PurePath
from typing import Any

IDENTITY_VERSION = 1
_DIGITS = 12
_KEPT = "_canonical_text"
_WORDS = {None: "null", True: "true", False: "false"}


# What says where things lie on this machine, and texts that say nothing about a number: in no record, no card, and
# never read from one.
UNRECORDED: Mapping[str, Any] = {"recorded": False}
PLACELESS: Mapping[str, Any] = {"without": ("path", "root")}


def recorded_part(item: dataclasses.Field[Any], value: Any) -> Any:
    """What records hold of the value of a field: a table without its paths."""
    without = item.metadata.get("without", ())
    return {key: part for key, part in value.items() if key not in without} if without else value


def is_recorded(item: dataclasses.Field[Any]) -> bool:
    """Whether a field of a spec stands in records and cards."""
    return bool(item.metadata.get("recorded", True))


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
    """The first `length` hexadecimal digits of the SHA-256 of the canonical form, written as JSON."""
    text = f"[{IDENTITY_VERSION},{_text(value)}]"
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything with a canonical form; the same parts give the same seed on every machine."""
    return int(digest(list(parts)), 16) & (2**63 - 1)


def _of_spec(spec: Any) -> object:
    """The form of a dataclass."""
    identity = getattr(spec, "identity", None)
    if callable(identity):
        return canonical(identity())
    return {field.name: canonical(getattr(spec, field.name)) for field in dataclasses.fields(spec)}


def _text(value: Any) -> str:
    """The canonical form as JSON with sorted keys, joined from the texts of its parts."""
    if value is None or value is True or value is False:
        return _WORDS[value]
    kind = type(value)
    if kind is str:
        return encode_basestring(value)
    if kind is int or kind is float:
        number = _number(value)
        return encode_basestring(number) if isinstance(number, str) else repr(number)
    if hasattr(kind, "__dataclass_fields__"):
        return _text_of_spec(value)
    if kind is dict:
        texts = {str(key): _text(value[key]) for key in sorted(value, key=str)}
        return "{" + ",".join([f"{encode_basestring(key)}:{text}" for key, text in texts.items()]) + "}"
    if kind is list or kind is tuple:
        return "[" + ",".join([_text(item) for item in value]) + "]"
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _text_of_spec(spec: Any) -> str:
    """The text of a dataclass; a frozen one keeps it, since a grid of cells shares its backbones, sets and recipes.

    What has an id of its own keeps nothing: there are as many of them as cells, and each is needed once or twice.
    """
    kept = getattr(spec, "__dict__", {})
    if _KEPT in kept:
        return str(kept[_KEPT])
    identity = getattr(spec, "identity", None)
    if callable(identity):
        text = _text(identity())
    else:
        text = _text({field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)})
    if spec.__dataclass_params__.frozen and hasattr(spec, "__dict__") and not hasattr(type(spec), "id"):
        object.__setattr__(spec, _KEPT, text)
    return text


def _number(value: float) -> int | float | str:
    if value != value or value in (float("inf"), float("-inf")):
        return repr(float(value))
    if float(value).is_integer() and abs(value) < 2**53:
        return int(value)
    return float(f"{value:.{_DIGITS}g}")
