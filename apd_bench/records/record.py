"""What one measured cell leaves behind: a versioned record (JSON) and its per-sample outcomes (numpy).

The record documents every key it writes; `Record.from_json(record.to_json())` is the same record. Its text carries its
own digest, and its id is that of the cell in it: what differs in one letter from what was written is damaged.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from apd_bench.core.bounds import parse_json
from apd_bench.core.errors import CorruptFile, OtherSchema
from apd_bench.core.files import sha256
from apd_bench.core.identity import is_recorded, recorded_part
from apd_bench.core.specs import Cell, one_of
from apd_bench.core.versions import RECORD, refuse_newer, refuse_older
from apd_bench.records.interning import Parts, is_of
from apd_bench.records.npz import Array, arrays

SCHEMA_VERSION = RECORD
STATUSES = ("success", "error", "cancelled")
_SAME_FOR_MANY = frozenset({"sample_id", "label"})
_DIGEST = re.compile(r'\n "digest": "([0-9a-f]{64})",\n')  # one blank before the key: it is one of the record itself
_SCHEMA = re.compile(r'\n "schema": (\d+),\n')
_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,), "status": (str,), "created": (str,), "schema": (int,), "suspect": (list,),
    **dict.fromkeys(("metrics", "diagnostics", "effective", "fit", "timing", "environment"), (dict,)),
    **dict.fromkeys(("error", "outcomes"), (dict, type(None))),
}  # fmt: skip
_KNOWN: dict[str, dict[str, Any]] = {  # what others compute with; each may be missing or null
    "metrics": {"n": int, "clean_accuracy": float, "robust_accuracy": float},
    "fit": {"digest": str, "num_parameters": int, "seconds": float, "collapsed": bool},
    "environment": {"packages": dict[str, Any], "plugins": dict[str, Any]},
    "error": {"type": str, "message": str, "hint": str, "traceback": str, "prerequisite": bool, "stage": str},
}
_OUTCOMES_FILE = re.compile(r"[0-9a-f]+-[0-9a-f]{8}\.npz")


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What happened to each of N test samples, in the order of the test split.

    `sample_id` [N] text, `label`, `clean_prediction`, `adversarial_prediction` [N] int32, `broken` [N] bool: the
    sample is misclassified, by itself or under the attack. `extra` holds further columns of length N by name, such as
    `distance`, `margin`, or `broken_apgd-ce` for the parts of an ensemble.
    """

    sample_id: Array
    label: Array
    clean_prediction: Array
    adversarial_prediction: Array
    broken: Array
    extra: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cast = object.__setattr__
        cast(self, "sample_id", np.asarray(self.sample_id, dtype=np.str_))
        for name in ("label", "clean_prediction", "adversarial_prediction"):
            cast(self, name, np.asarray(getattr(self, name), dtype=np.int32))
        cast(self, "broken", np.asarray(self.broken, dtype=np.bool_))
        cast(self, "extra", {name: np.asarray(column) for name, column in self.extra.items()})
        lengths = {name: len(column) for name, column in self.columns()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of unequal length: {lengths}")

    def __len__(self) -> int:
        return len(self.sample_id)

    def columns(self) -> Iterator[tuple[str, Array]]:
        """All columns with their names, the extra ones as `extra.NAME`."""
        for name in ("sample_id", "label", "clean_prediction", "adversarial_prediction", "broken"):
            yield name, getattr(self, name)
        for name, column in sorted(self.extra.items()):
            yield f"extra.{name}", column

    def to_bytes(self) -> bytes:
        """The outcomes as a compressed .npz file; the same outcomes give the same bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(self.columns()))  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(
        cls,
        content: bytes,
        *,
        source: str = "outcomes",
        shared: dict[bytes, Array] | None = None,
        extra: Collection[str] | None = None,
        samples: int | None = None,
    ) -> Outcomes:
        """The outcomes in an .npz file; raises CorruptFile, naming `source`, when they cannot be read.

        With `shared`, equal columns of ids and labels are one read-only array, which it keeps for the next files. Of
        the further columns only those in `extra` are read (None: all). `samples` is the declared number of rows.
        """

        def unwanted(name: str) -> bool:
            return extra is not None and name.startswith("extra.") and name[6:] not in extra

        try:
            columns = arrays(content, _SAME_FOR_MANY, shared, unwanted, samples)
            further = {name[6:]: columns.pop(name) for name in list(columns) if name.startswith("extra.")}
            outcomes = cls(**columns, extra=further)
            if samples is not None and len(outcomes) != samples:
                raise ValueError(f"it holds {len(outcomes)} samples, not {samples}")
            return outcomes
        except ValueError as error:
            raise CorruptFile(f"{source} cannot be read: {error}.") from error
        except Exception as error:  # zipfile, zlib, struct, OSError, KeyError, TypeError: numpy documents none of them
            raise CorruptFile(f"{source} cannot be read: it is torn, or holds something else.") from error

    @classmethod
    def merge(cls, parts: list[Outcomes], order: list[str]) -> Outcomes:
        """The outcomes of disjoint sample shards as one, in the order of the sample ids `order`."""
        columns = [dict(part.columns()) for part in parts]
        joined = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
        place = {sample: row for row, sample in enumerate(joined["sample_id"].tolist())}
        if len(place) != len(joined["sample_id"]) or set(place) != set(order):
            raise ValueError("sample shards overlap or do not cover the cell")
        rows = np.asarray([place[sample] for sample in order])
        joined = {name: column[rows] for name, column in joined.items()}
        extra = {name[6:]: joined.pop(name) for name in list(joined) if name.startswith("extra.")}
        return cls(**joined, extra=extra)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cell's result.

    - `id`: the cell's content address; `cell`: every choice that led to the numbers.
    - `status`: "success", "error" or "cancelled"; only "success" counts as done.
    - `metrics` (success only): `n` samples; shares in [0,1] `clean_accuracy`, `robust_accuracy`; for minimal-norm
      attacks `median_distance`. `diagnostics`: masking checks; `suspect`: reasons not to trust the number.
    - `effective`: what was really run where it differs from what was asked (target classes, batch size, steps).
    - `fit`: digest, parameters, seconds and `collapsed` flag of the prompt state.
    - `timing`: `seconds`, `attack_seconds`, `model_seconds` (inside the model's passes), `forwards`, `backwards`
      (image passes), `peak_memory` in bytes.
    - `environment`: versions, git commit and dirty flag, device, plug-ins. `created`: UTC, ISO 8601.
    - `error` (error only): `type`, `message`, `hint`, `traceback`, `stage`, `prerequisite`.
    - `outcomes` (success only): `file`, `sha256` and `n` of the per-sample file.
    """

    id: str
    cell: Cell
    status: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    suspect: tuple[str, ...] = ()
    effective: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    error: Mapping[str, Any] | None = None
    outcomes: Mapping[str, Any] | None = None
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        one_of("Record status", self.status, STATUSES)

    @property
    def done(self) -> bool:
        """True when the cell needs no further work."""
        return self.status == "success"

    def to_json(self) -> str:
        """The record as JSON text with sorted keys, ending in a newline."""
        return sealed(plain(self, recorded=True))

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "record", parts: Parts | None = None) -> Record:
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
            data["environment"] = parts.environment(data["environment"])
            for name, kinds in _TYPES.items():
                if not isinstance(data[name], kinds):
                    raise ValueError(f"its {name} is {type(data[name]).__name__}")
            _check_values(data)
            if data["id"] != cell.id:
                raise ValueError(f"its id is {data['id']}, but its cell is {cell.id}")
            return cls(cell=cell, **{**data, "suspect": tuple(data["suspect"])})
        except OtherSchema:
            raise
        except Exception as error:
            raise CorruptFile(
                f"{source} is damaged: {error if type(error) is ValueError else f'{type(error).__name__}: {error}'}.",
                hint="`apd-bench run` moves it aside and measures the cell again.",
            ) from error

    def with_outcomes(self, file: str, sha256: str, n: int) -> Record:
        """The record that names its outcomes file."""
        return replace(self, outcomes={"file": file, "sha256": sha256, "n": n})


def sealed(data: Mapping[str, Any]) -> str:
    """The JSON text of a record, with the SHA-256 of the text around it as its digest."""
    return _with_digest(json.dumps({**data, "digest": "0" * 64}, sort_keys=True, indent=1, allow_nan=False) + "\n")


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
            _refuse_other(int(stated[1]), source)
    if stated is None:
        data = parse_json(text)
        schema = data.get("schema") if isinstance(data, dict) and "cell" in data else None
        if type(schema) is not int:
            raise ValueError("it is not a record")
        _refuse_other(schema, source)
    if _with_digest(text) != text:
        raise ValueError("its digest says that it was changed")


def _refuse_other(schema: int, source: str) -> None:
    refuse_newer(schema, SCHEMA_VERSION, source)
    refuse_older(schema, SCHEMA_VERSION, source)


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
    _check_outcomes(data["outcomes"])


def _check_outcomes(outcomes: Mapping[str, Any] | None) -> None:
    if outcomes is None:
        return
    file, digest, n = outcomes["file"], outcomes["sha256"], outcomes["n"]
    if not all(isinstance(text, str) for text in (file, digest)) or not _OUTCOMES_FILE.fullmatch(file):
        raise ValueError(f"'{file}' is no file of outcomes")
    if type(n) is not int or n < 0:
        raise ValueError(f"{n} is no number of samples")


def plain(value: Any, *, recorded: bool = False) -> Any:
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
        return plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        items = {item: getattr(value, item.name) for item in fields(value) if not recorded or is_recorded(item)}
        parts = {item.name: recorded_part(item, part) if recorded else part for item, part in items.items()}
        return {name: plain(part, recorded=recorded) for name, part in parts.items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item, recorded=recorded) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, recorded=recorded) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a record: {value!r}")
