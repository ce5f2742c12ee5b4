"""What one measured cell leaves behind: a versioned record (JSON) that names the file of its per-sample outcomes.

The record documents every key it writes; `Record.from_json(record.to_json())` is the same record. Its text carries its
own digest, and its id is that of the cell in it: what differs in one letter from what was written is damaged.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import Any, get_type_hints

import numpy as np

from apd_bench.core.bounds import parse_json
from apd_bench.core.errors import CorruptFile, OtherSchema
from apd_bench.core.files import sha256
from apd_bench.core.identity import is_left_out, is_recorded, recorded_part
from apd_bench.core.specs import Cell, one_of
from apd_bench.core.text import json_text
from apd_bench.core.versions import RECORD, refuse_other
from apd_bench.records.interning import Parts, is_of
from apd_bench.records.measured import Environment, Facts, FitFacts, facts_of
from apd_bench.records.outcomes import Metrics, accuracies

SCHEMA_VERSION = RECORD
STATUSES = ("success", "error", "cancelled")
_DIGEST = re.compile(r'\n "digest": "([0-9a-f]{64})",\n')  # on a line of its own: it is a key of the record itself
_SCHEMA = re.compile(r'\n "schema": (\d+),\n')
_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,), "status": (str,), "created": (str,), "schema": (int,),
    **dict.fromkeys(("error", "outcomes"), (dict, type(None))),
}  # fmt: skip
_KNOWN: dict[str, dict[str, Any]] = {  # what others compute with; each may be missing or null
    "metrics": get_type_hints(Metrics),
    "fit": get_type_hints(FitFacts),
    "environment": get_type_hints(Environment),
    "error": {"type": str, "message": str, "hint": str, "traceback": str, "prerequisite": bool, "stage": str},
}
_OUTCOMES_FILE = re.compile(r"[0-9a-f]+-[0-9a-f]{8}\.npz")


@dataclass(frozen=True, kw_only=True)
class Record(Facts):
    """One cell's result.

    - `id`: the cell's content address; `cell`: every choice that led to the numbers.
    - `status`: "success", "error" or "cancelled"; only "success" counts as done.
    - what was measured: the parts of `Facts`, empty without success. `created`: UTC, ISO 8601.
    - `error` (error only): `type`, `message`, `hint`, `traceback`, `stage`, `prerequisite`.
    - `outcomes` (success only): `file`, `sha256` and `n` of the per-sample file.
    """

    id: str
    cell: Cell
    status: str
    created: str = ""
    error: Mapping[str, Any] | None = None
    outcomes: Mapping[str, Any] | None = None
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        one_of("Record status", self.status, STATUSES)

    def __repr__(self) -> str:
        said = accuracies(self.metrics) if self.done else self.status
        return f"Record({self.id}, {self.cell.label}: {said})"

    @property
    def done(self) -> bool:
        """True when the cell needs no further work."""
        return self.status == "success"

    def to_json(self) -> str:
        """The record as JSON text with sorted keys, ending in a newline."""
        return sealed(json_form(self, recorded=True))

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "record", parts: Parts | None = None) -> "Record":
        """The record behind JSON text; `parts` keeps what the next records may repeat.

        Raises CorruptFile, naming `source`, when it is torn, changed, or of another cell than its id says, and
        OtherSchema when another version of apd-bench wrote it.
        """
        parts = parts or Parts()
        try:
            text = (text if isinstance(text, str) else text.decode("utf-8")).replace("\r\n", "\n")  # as git may
            _check_seal(text, source)
            data = parse_json(text)
            cell = parts.cell(data.pop("cell"))
            del data["digest"]
            data |= facts_of(data)
            data["environment"] = parts.environment(data["environment"])
            for name, kinds in _TYPES.items():
                if not isinstance(data[name], kinds):
                    raise ValueError(f"its {name} is {type(data[name]).__name__}")
            _check_values(data)
            if data["id"] != cell.id:
                raise ValueError(f"its id is {data['id']}, but its cell is {cell.id}")
            return cls(cell=cell, **data)
        except OtherSchema:
            raise
        except Exception as error:
            raise CorruptFile(
                f"{source} is damaged: {error if type(error) is ValueError else f'{type(error).__name__}: {error}'}.",
                hint="`apd-bench run` moves it aside and measures the cell again.",
            ) from error


def sealed(data: Mapping[str, Any]) -> str:
    """The JSON text of a record, a line for each part, with the SHA-256 of the text around it as its digest."""
    return _with_digest(json_text({**data, "digest": "0" * 64}, 1, allow_nan=False) + "\n")


def _with_digest(text: str) -> str:
    found = _DIGEST.search(text)
    if found is None:
        raise ValueError("it is not a record: it has no digest")
    before, after = text[: found.start(1)], text[found.end(1) :]
    return before + sha256((before + after).encode()) + after


def _check_seal(text: str, source: str) -> None:
    """Raises ValueError for a text that is not as it was written, OtherSchema for that of another version."""
    stated = _SCHEMA.search(text) if '"cell": {' in text else None  # else it is no record of any version
    if stated is not None and stated[1] != str(SCHEMA_VERSION):
        here = text[: stated.start(1)] + str(SCHEMA_VERSION) + text[stated.end(1) :]
        if _DIGEST.search(text) is None or _with_digest(here) != here:  # else the version is all that was changed
            refuse_other(int(stated[1]), SCHEMA_VERSION, source)
    if stated is None:
        data = parse_json(text)
        schema = data.get("schema") if isinstance(data, dict) and "cell" in data else None
        if type(schema) is not int:
            raise ValueError("it is not a record")
        refuse_other(schema, SCHEMA_VERSION, source)
    if _with_digest(text) != text:
        raise ValueError("its digest says that it was changed")


def _check_values(data: Mapping[str, Any]) -> None:
    """Raises ValueError unless the values of a record are of the kinds that its readers count on."""
    known = {**_KNOWN, "timing": dict.fromkeys(data["timing"], float)}
    for part, kinds in known.items():
        for name, kind in kinds.items():
            value = (data[part] or {}).get(name)
            if value is not None and not is_of(value, kind):
                raise ValueError(f"its {part} has {value!r:.60} as {name}")
    if not is_of(data["suspect"], list[str]):
        raise ValueError("its suspect marks are not text")
    if (outcomes := data["outcomes"]) is None:
        return
    file, digest, n = outcomes["file"], outcomes["sha256"], outcomes["n"]
    if not all(isinstance(text, str) for text in (file, digest)) or not _OUTCOMES_FILE.fullmatch(file):
        raise ValueError(f"'{file}' is no file of outcomes")
    if type(n) is not int or n < 0:
        raise ValueError(f"{n} is no number of samples")


def json_form(value: Any, *, recorded: bool = False) -> Any:
    """`value` as JSON types: dataclasses by field, numpy scalars as numbers, NaN as null, infinities as text.

    With `recorded`, what no record holds (see `specs.UNRECORDED`) is left out.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return number if math.isfinite(number) else None if math.isnan(number) else repr(number)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return json_form(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        items = {item: getattr(value, item.name) for item in fields(value) if not recorded or is_recorded(item)}
        items = {item: part for item, part in items.items() if not is_left_out(item, part)}
        parts = {item.name: recorded_part(item, part) if recorded else part for item, part in items.items()}
        return {name: json_form(part, recorded=recorded) for name, part in parts.items()}
    if isinstance(value, Mapping):
        return {str(key): json_form(item, recorded=recorded) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_form(item, recorded=recorded) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((json_form(item) for item in value), key=str)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a record: {value!r}")
