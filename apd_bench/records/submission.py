"""One's results as one archive that somebody else can check: records, outcomes, prompt states, environment, card.

An archive holds `submission.json` (who, what, digest of every file), `cells/` and `fits/` in the layout of a store,
and an optional `CARD.md`. The same store gives the same bytes. Nothing in an archive is trusted: paths, sizes and
digests are checked before a file is used, and nothing is executed to read one.
"""

import gzip
import io
import json
import math
import random
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apd_bench.core import errors
from apd_bench.core.bounds import ALWAYS_FINE, JSON_BYTES, LARGEST_FILE, TIMES_LARGER, parse_json
from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite, OtherSchema, UserError
from apd_bench.core.files import atomic_write, sha256
from apd_bench.core.registry import BACKBONES, DATASETS
from apd_bench.core.specs import Cell
from apd_bench.core.text import plain
from apd_bench.core.versions import refuse_other
from apd_bench.records.interning import is_of
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import Record
from apd_bench.records.store import Store

SCHEMA = 1
MANIFEST = "submission.json"
CARD = "CARD.md"
_ALLOWED = re.compile(
    r"(submission\.json|CARD\.md|cells/[0-9a-f]{2}/[0-9a-f]+(-[0-9a-f]{8})?\.(json|npz)|fits/[0-9a-f]+/"
    r"[A-Za-z0-9][A-Za-z0-9_-]*\.(json|safetensors))"
)
_MOST_FILES = 200_000
_LARGEST_ALL = 8 * 2**30
_MANIFEST: dict[str, Any] = {
    "schema": int, "author": str, "methods": list[str], "cells": int, "files": dict[str, str],
}  # fmt: skip


@dataclass(frozen=True)
class Disagreement:
    """A cell that came out differently: on how many of its samples, by the submission and here."""

    cell: Cell
    samples: int
    n: int
    submitted: int
    measured: int


def pack(stores: Sequence[Path], target: Path, *, methods: Sequence[str], author: str, card: str = "") -> int:
    """Packs the finished cells of `methods` (all when empty) with their prompt states; returns the number of cells.

    Raises MissingPrerequisite when there is nothing to pack or a prompt state is not there.
    """
    files: dict[str, bytes] = {}
    names: set[str] = set()
    environments: dict[str, Any] = {}
    for path in stores:
        store = Store(path)
        for record in store.records():
            if not record.done or (methods and record.cell.fit.method.name not in methods):
                continue
            names.add(record.cell.fit.method.name)
            environments[json.dumps(record.environment, sort_keys=True)] = record.environment
            files |= _cell_files(store, record) | _fit_files(store, record)
    if not files:
        asked = f" of {', '.join(methods)}" if methods else ""
        raise MissingPrerequisite(f"There is no finished cell{asked} to submit.", hint="See: apd-bench report")
    if card:
        files[CARD] = card.encode()
    cells = sum(name.startswith("cells/") and name.endswith(".json") for name in files)
    manifest = {
        "schema": SCHEMA,
        "author": author,
        "methods": sorted(names),
        "cells": cells,
        "environments": [environments[key] for key in sorted(environments)],
        "files": {name: sha256(content) for name, content in sorted(files.items())},
    }
    files[MANIFEST] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as bundle:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            bundle.addfile(entry, io.BytesIO(content))
    atomic_write(target, gzip.compress(packed.getvalue(), mtime=0))
    return cells


def unpack(archive: Path, folder: Path) -> dict[str, Any]:
    """Lays a checked archive out in `folder`, as a store, and returns its manifest.

    Raises CorruptFile for anything that is not what `pack` writes: other paths, links, wrong digests, missing or
    additional files, too much of anything.
    """
    seen: dict[str, str] = {}
    try:
        _refuse_bomb(archive)
        with tarfile.open(archive, "r:gz") as bundle:
            for name, content in _members(bundle):
                seen[name] = sha256(content)
                atomic_write(folder / name, content)
        if MANIFEST not in seen:
            raise ValueError(f"it holds no {MANIFEST}")
        manifest = parse_json((folder / MANIFEST).read_bytes(), largest=4 * JSON_BYTES)
        for name, hint in _MANIFEST.items():
            if not is_of(manifest[name], hint):
                raise ValueError(f"the entry '{name}' of its {MANIFEST} is {manifest[name]!r:.60}")
        declared = manifest["files"]
        manifest["methods"] = [plain(name) for name in manifest["methods"]]
        with _by_another_version(folder):
            refuse_other(manifest["schema"], SCHEMA, MANIFEST)
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"There is no submission at {error.filename}.") from error
    except (
        *(OSError, EOFError, tarfile.TarError, zlib.error),
        *(ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, MemoryError),
    ) as error:
        raise CorruptFile(f"{archive} is not a submission: {error}.", hint="Pack it with: apd-bench submit") from error
    seen.pop(MANIFEST)
    wrong = sorted(name for name in {*seen, *declared} if seen.get(name) != declared.get(name))
    if wrong:
        raise CorruptFile(f"{archive}: {len(wrong)} files are not as its list says, the first is {wrong[0]}.")
    if manifest["cells"] != sum(name.startswith("cells/") and name.endswith(".json") for name in seen):
        raise CorruptFile(f"{archive}: it says {manifest['cells']} cells, and holds another number.")
    return dict(manifest)


def check_records(store: Store) -> list[Record]:
    """The records of an unpacked archive; raises CorruptFile unless each is whole and says what its outcomes say.

    There is at least one, each is a success, and its prompt state is there.
    """
    with _by_another_version(store.path):
        records = list(store.records())
    for damage in store.damaged():
        raise CorruptFile(f"Record {damage.id}: {damage.reason.rstrip('.')}.")
    if not records:
        raise CorruptFile("The archive holds no records.", hint="Pack them with: apd-bench submit")
    for record in records:
        if record.status != "success" or record.outcomes is None:
            raise CorruptFile(f"Record {record.id} is no success with outcomes: its status is {record.status}.")
        problem = store.fit_problem(record.cell.fit.id)
        if problem is not None:
            raise CorruptFile(f"The prompt state {record.cell.fit.id}: {problem or 'it is missing'}.")
        outcomes = Store(store.path).outcomes(record.id, record)  # a store keeps what outcomes have in common
        stated, counted = dict[str, Any](record.metrics), dict[str, Any](outcomes.metrics())
        for name, value in counted.items():
            claimed = stated.get(name)
            number: Any = math.inf if claimed == "inf" else claimed
            if type(number) not in (int, float) or not math.isclose(number, value, rel_tol=0, abs_tol=1e-6):
                raise CorruptFile(f"Record {record.id} claims the {name} {claimed!r:.60}; its samples say {value:g}.")
        if not len(outcomes) or np.any(~outcomes.broken & (outcomes.clean_prediction != outcomes.label)):
            raise CorruptFile(f"Record {record.id} has no samples, or counts misclassified ones as robust.")
    return records


@contextmanager
def _by_another_version(folder: Path) -> Iterator[None]:
    """Says of an archive, not of a store, what to do when another version wrote it."""
    try:
        yield
    except OtherSchema as error:
        raise type(error)(
            f"The archive: {error.message.replace(f'{folder}/', '')}",
            hint="Check it with the version that its environment names, or have it packed again with this one.",
        ) from error


def draw_cells(records: Sequence[Record], count: int, seed: int) -> list[Cell]:
    """`count` cells at random (all, if there are fewer), as cells of this installation; `seed` repeats a draw.

    Raises IncompatibleChoice when a backbone or dataset here is not the one that was submitted on.
    """
    if count < 1:
        raise errors.UsageError(f"{count} cells to measure again would say nothing.", hint="Use --cells 5.")
    ordered = sorted(records, key=lambda record: record.id)
    chosen = random.Random(seed).sample(ordered, min(count, len(ordered)))  # noqa: S311  (a lottery, not a secret)
    return [local_cell(record.cell) for record in chosen]


def local_cell(cell: Cell) -> Cell:
    """`cell` with the backbone and datasets of this installation: paths differ between machines, contents may not."""
    try:
        backbone = BACKBONES.get(cell.fit.backbone.name)
        source, target = DATASETS.get(cell.fit.dataset.name), DATASETS.get(cell.dataset.name)
    except UserError as error:
        raise IncompatibleChoice(f"This installation cannot repeat a cell: {error.message}", hint=error.hint) from error
    local = replace(cell, fit=replace(cell.fit, backbone=backbone, dataset=source), dataset=target)
    if local.id != cell.id:
        raise IncompatibleChoice(
            f"{cell.label}: the backbone or dataset here is another version than the submitted one.",
            hint="Install the version that the submission names in its environment.",
        )
    return local


def disagreement(cell: Cell, submitted: Outcomes, measured: Outcomes, allowed: int) -> Disagreement | None:
    """What differs between two outcomes of one cell, or None when at most `allowed` samples do."""
    differ = max(len(submitted), len(measured))
    if np.array_equal(submitted.sample_id, measured.sample_id):
        pairs = ((submitted.broken, measured.broken), (submitted.clean_prediction, measured.clean_prediction))
        differ = max(int((theirs != ours).sum()) for theirs, ours in pairs)
    if differ <= allowed:
        return None
    return Disagreement(cell, differ, len(submitted), *(int((~each.broken).sum()) for each in (submitted, measured)))


def _cell_files(store: Store, record: Record) -> dict[str, bytes]:
    path = store.record_path(record.id)
    place = f"cells/{path.parent.name}"
    store.outcomes(record.id, record)  # checks the digest
    name = str((record.outcomes or {})["file"])
    return {f"{place}/{path.name}": path.read_bytes(), f"{place}/{name}": (path.parent / name).read_bytes()}


def _fit_files(store: Store, record: Record) -> dict[str, bytes]:
    fit_id = record.cell.fit.id
    problem = store.fit_problem(fit_id)
    if problem is not None:
        raise MissingPrerequisite(
            f"The prompt state {fit_id} of {record.cell.label}: {problem or 'it is not in the store'}.",
            hint="Measure the cell again with --force.",
        )
    folder = store.fit_path(fit_id)
    return {f"fits/{fit_id}/{path.name}": path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _refuse_bomb(archive: Path) -> None:
    """Raises ValueError when unpacking would yield far more than is there, before anything is kept or even parsed."""
    allowed = min(_LARGEST_ALL, max(ALWAYS_FINE, TIMES_LARGER * archive.stat().st_size))
    total = 0
    with gzip.open(archive) as stream:
        while chunk := stream.read(2**20):
            total += len(chunk)
            if total > allowed:
                raise ValueError("it is too large")


def _members(bundle: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    total, names = 0, set()
    for count, entry in enumerate(bundle):
        if not entry.isreg() or entry.issparse() or not _ALLOWED.fullmatch(entry.name) or entry.name in names:
            raise ValueError(f"it holds '{entry.name[:80]}', which no submission has")
        total += entry.size
        if count >= _MOST_FILES or entry.size > LARGEST_FILE or total > _LARGEST_ALL:
            raise ValueError("it is too large")
        names.add(entry.name)
        stream = bundle.extractfile(entry)
        if stream is None:
            raise ValueError(f"'{entry.name}' cannot be read")
        yield entry.name, stream.read()
