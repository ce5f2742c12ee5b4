"""Cells from the JSON of records, thousands of them: what equal records repeat is parsed and built once.

Half of a record's text says which backbone, which sets and which recipe, and few of these differ between the records
of a store. Their text is cut out before the rest is parsed, and the same text stands for the same spec, which then
also keeps its canonical form. Replacing one whole JSON value by another changes nothing else, so a damaged record
stays one; whatever does not look as `Record.to_json` writes it is parsed as a whole.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Mapping
from typing import Any, TypeVar

from apd_bench.specs import AttackSpec, BackboneSpec, Cell, DatasetSpec, Fit, MethodRecipe, ThreatModel

Spec = TypeVar("Spec")
_KINDS: dict[str, type] = {"backbone": BackboneSpec, "dataset": DatasetSpec, "method": MethodRecipe}
_TUPLES = frozenset({"aliases", "offers", "needs", "exclude"})
_CELL, _CELL_ENDS = '{\n "cell": {\n', "\n },\n"
_ENVIRONMENT, _ENVIRONMENT_ENDS = '\n "environment": {\n', "\n }"


def _edges(name: str, depth: int) -> tuple[str, str, str]:
    pad = " " * depth
    return name, f'\n{pad}"{name}": {{\n', f"\n{pad}}}"


# In the order of sorted keys: the tested set, the parts of the fit, and those of the fit of a transfer's source.
_FIT = (_edges("backbone", 3), _edges("dataset", 3), _edges("method", 3))
_CUT = (_edges("dataset", 2), *_FIT, *_FIT)


class _Block(str):
    """The text of a JSON object that was cut out of a record."""

    __slots__ = ()


class Parts:
    """What the records of a store have in common; one instance serves the reading of all of them."""

    def __init__(self) -> None:
        self._specs: dict[tuple[type, str | bytes], Any] = {}
        self._fits: dict[tuple[Any, ...], Fit] = {}
        self._environments: dict[str, Any] = {}

    def parse(self, text: str | bytes) -> Any:
        """The JSON value in `text`, whose cell only `cell` can read; raises ValueError when it is torn."""
        try:
            found = self._parse_cut(text if isinstance(text, str) else text.decode())
        except UnicodeDecodeError:
            found = None
        return json.loads(text) if found is None else found

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
        key = (kind, data if isinstance(data, _Block) else _key(data))
        found: Spec | None = self._specs.get(key)
        if found is None:
            found = kind(**_values(json.loads(data) if isinstance(data, _Block) else data))
            self._specs[key] = found
        return found

    def _parse_cut(self, text: str) -> Any:
        """As `parse`, with the repeated parts cut out; None for what is not written as `Record.to_json` does."""
        end = text.find(_CELL_ENDS)
        if end < 0 or not text.startswith(_CELL):
            return None
        rest, blocks, place = [], [], 0
        for _, opening, closing in _CUT:
            start = text.find(opening, place, end)
            stop = text.find(closing, start, end)
            if start < 0 or stop < 0:
                break
            start, stop = start + len(opening) - 2, stop + len(closing)
            rest.append(text[place:start])
            blocks.append(_Block(text[start:stop]))
            place = stop
        start = text.find(_ENVIRONMENT, end)
        stop = text.find(_ENVIRONMENT_ENDS, start) + len(_ENVIRONMENT_ENDS)
        if start < 0 or stop < start or len(blocks) not in (len(_CUT) - len(_FIT), len(_CUT)):
            return None
        start += len(_ENVIRONMENT) - 2
        data = json.loads("0".join((*rest, text[place:start], text[stop:])))
        return data if _put_back(data, blocks) and self._put_environment(data, text[start:stop]) else None

    def _put_environment(self, data: dict[str, Any], block: str) -> bool:
        if block not in self._environments:
            self._environments[block] = json.loads(block)
        replaced = data.get("environment") == 0
        data["environment"] = self._environments[block]
        return replaced


def _put_back(data: Any, blocks: list[_Block]) -> bool:
    """Puts the blocks where a 0 stands for each of them; False when one of them came from anywhere else."""
    try:
        cell = data["cell"]
        owners = [cell, *[cell["fit"]] * len(_FIT), *[cell["source"]] * len(_FIT)]
        for owner, (name, _, _), block in zip(owners, _CUT, blocks, strict=False):
            if owner[name] != 0:
                return False
            owner[name] = block
    except (KeyError, TypeError):
        return False
    return True


def _key(data: Any) -> bytes:
    """Bytes that only equal JSON values share, 1 and 1.0 apart."""
    return marshal.dumps(data, 2)  # the last version without references, which would depend on who else holds a value


def _values(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if key in _TUPLES else value for key, value in data.items()}
