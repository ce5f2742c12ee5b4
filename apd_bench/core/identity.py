"""What makes two cells the same: the canonical form of a spec and its hash.

Every field of a spec counts unless it is declared beside the field not to, so that a forgotten one measures anew
instead of mixing. What cannot change a number (device, workers, batch size, where things lie) is no field or is
declared. Ids are computed from specs alone, so that a planned cell and a finished record agree.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from pathlib import PurePath
from typing import Any

IDENTITY_VERSION = 2  # 2: opt-out, objectives by name; records of version 1 have schemas below 3
_SALT = 1  # of seeds, and of digests that are no ids: it never changes, or every number would
_DIGITS = 12
_KEPT = "_canonical_text"
_WORDS = {None: "null", True: "true", False: "false"}

# Metadata of a spec's fields. NOT_IDENTITY: describes what another field decides. UNRECORDED: where things lie on this
# machine, and texts that say nothing about a number; also in no record or card, and never read from one. PLACELESS: a
# table whose paths are left out of both. IF_GIVEN: left out of ids and records where it is None, so that what was
# measured before there was such a field keeps its id.
NOT_IDENTITY: Mapping[str, Any] = {"identity": False}
UNRECORDED: Mapping[str, Any] = {"identity": False, "recorded": False}
PLACELESS: Mapping[str, Any] = {"without": ("path", "root")}
IF_GIVEN: Mapping[str, Any] = {"if_given": True}


def counts_as(value: Callable[[Any], object]) -> Mapping[str, Any]:
    """Metadata of a field that counts as `value(spec)`."""
    return {"identity": value}


def counted(spec: Any) -> dict[str, object]:
    """The fields of a spec that count, by name, with what they count as."""
    found: dict[str, object] = {}
    for item in dataclasses.fields(spec):
        rule = item.metadata.get("identity", True)
        if is_left_out(item, getattr(spec, item.name)):
            continue
        if callable(rule):
            found[item.name] = rule(spec)
        elif rule:
            found[item.name] = recorded_part(item, getattr(spec, item.name))
    return found


def is_recorded(item: dataclasses.Field[Any]) -> bool:
    """Whether a field of a spec stands in records and cards."""
    return bool(item.metadata.get("recorded", True))


def is_left_out(item: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field has no place in ids and records while it is None."""
    return value is None and "if_given" in item.metadata


def recorded_part(item: dataclasses.Field[Any], value: Any) -> Any:
    """What records hold of the value of a field: a table without its paths."""
    without = item.metadata.get("without", ())
    return {key: part for key, part in value.items() if key not in without} if without else value


def canonical(value: object) -> Any:
    """`value` as plain JSON types with one spelling each; raises TypeError for anything that has no such form.

    Dataclasses are read by the fields that count. Floats that are whole numbers and integers are the same value; floats
    are cut to 12 significant digits, so 4/255 has one spelling.
    """
    return json.loads(_text(value))


def digest(value: object, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of the canonical form, written as JSON."""
    return _hash(_SALT, value)[:length]


def identify(spec: object) -> str:
    """The id of a fit or a cell, 16 hexadecimal digits."""
    return _hash(IDENTITY_VERSION, spec)[:16]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything with a canonical form; the same parts give the same seed on every machine."""
    return int(digest(list(parts)), 16) & (2**63 - 1)


def _hash(version: int, value: object) -> str:
    return hashlib.sha256(f"[{version},{_text(value)}]".encode()).hexdigest()


def _text(value: Any) -> str:
    """The canonical form as JSON with sorted keys, joined from the texts of its parts."""
    if value is None or value is True or value is False:
        return _WORDS[value]
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, (int, float)):
        number = _number(value)
        return encode_basestring(number) if isinstance(number, str) else repr(number)
    if hasattr(type(value), "__dataclass_fields__"):
        return _text_of_spec(value)
    if isinstance(value, Mapping):
        texts = {str(key): _text(value[key]) for key in sorted(value, key=str)}
        return "{" + ",".join([f"{encode_basestring(key)}:{text}" for key, text in texts.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([_text(item) for item in value]) + "]"
    if isinstance(value, (set, frozenset)):
        return _text(sorted(map(canonical, value), key=str))
    kind = "a path" if isinstance(value, PurePath) else type(value).__name__
    raise TypeError(f"{kind} has no place in an identity: {value!r}")


def _text_of_spec(spec: Any) -> str:
    """The text of a dataclass; a frozen one keeps it, since a grid of cells shares its backbones, sets and recipes.

    What has an id of its own keeps nothing: there are as many of them as cells, and each is needed once or twice.
    """
    kept = getattr(spec, "__dict__", {})
    if _KEPT in kept:
        return str(kept[_KEPT])
    text = _text(counted(spec))
    if spec.__dataclass_params__.frozen and hasattr(spec, "__dict__") and not hasattr(type(spec), "id"):
        object.__setattr__(spec, _KEPT, text)
    return text


def _number(value: float) -> int | float | str:
    if value != value or value in (float("inf"), float("-inf")):
        return repr(float(value))
    if float(value).is_integer() and abs(value) < 2**53:
        return int(value)
    return float(f"{value:.{_DIGITS}g}")
