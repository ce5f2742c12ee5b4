"""A folder of records: one JSON file a cell, one .npz of its outcomes, one folder a fit; nothing is ever half written.

    cells/<id[:2]>/<id>.json            the record; its rename is the moment a cell becomes done
    cells/<id[:2]>/<id>-<sha8>.npz      its per-sample outcomes, named by content
    fits/<id>/                          prompt state, card, manifest of digests
    checkpoints/<id>/                   what an unfinished attack left to go on from
    runs/<digest>.json                  resolved runs
    *.damaged                           what could not be read, moved aside, never deleted

Reading needs no lock and never writes. Writing needs `with store.writer():`, one process at a time.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apd_bench.core.bounds import parse_json
from apd_bench.core.errors import CorruptFile, MissingPrerequisite, OtherSchema, UnknownName, UsageError
from apd_bench.core.files import atomic_write, exclusive_lock, explain, read_bytes, sha256, sync_folder
from apd_bench.core.versions import CARD, MANIFEST, RECORD, STATE, refuse_other
from apd_bench.records.interning import Parts
from apd_bench.records.npz import Array
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import Record

_IGNORED = ".index.json\n.lock\ncheckpoints/\n*.tmp\n"
_INDEX_VERSION = 2
_UNSEEN = (0, 0, 0)
_FOLDER, _ID = re.compile(r"[0-9a-f]{2}"), re.compile(r"[0-9a-f]+")
_NEWER_CARD = re.compile(rb'"schema": *(?!%d\b)\d' % STATE)


@dataclass(frozen=True)
class Damage:
    """A file that cannot be trusted, and why; `id` is the cell it belongs to, `also` what is worthless without it."""

    id: str
    path: Path
    reason: str
    also: Path | None = None


Stamp = tuple[int, int, int]  # inode, size, modification time: each atomic write changes the first


@dataclass(frozen=True)
class _Seen:
    stamp: Stamp
    status: str
    outcomes: str = ""
    outcomes_stamp: Stamp = _UNSEEN  # of outcomes that had their digest


@dataclass(frozen=True)
class _File:
    """A record in the listing of its folder, which holds `files`."""

    id: str
    path: str
    stamp: Stamp
    files: Mapping[str, os.DirEntry[str]]


class Store:
    """The records under `path`.

    What other versions of this program wrote is refused: reading it raises OtherSchema, and nothing is changed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.cells = self.path / "cells"
        self.fits = self.path / "fits"
        self._damage: dict[str, Damage] = {}
        self._seen: dict[str, _Seen] = {}
        self._parts = Parts()  # what records repeat is kept once: there may be 100,000 of them
        self._columns: dict[bytes, Array] = {}

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    # ---------------------------------------------------------------- reading

    def exists(self) -> bool:
        """True when there is a folder of records at this path."""
        return self.cells.is_dir()

    def statuses(self) -> dict[str, str]:
        """The status of every sound record by cell id; damaged ones are left out and listed by `damaged()`.

        Sound means that record and outcomes have their digests; those of files that did not change are not taken again.
        """
        self._damage.clear()
        index = self._seen or self._read_index()
        seen: dict[str, _Seen] = {}
        for file in self._listing():
            known = index.get(file.id)
            if known is None or known.stamp != file.stamp or not _is_whole(file, known):
                record = self._look(file)
                if record is None or (known := self._proven(file, record)) is None:
                    continue
            seen[file.id] = known
        self._seen = seen
        return {cell_id: item.status for cell_id, item in seen.items()}

    def damaged(self) -> list[Damage]:
        """Records found unreadable by the last `statuses()` or `records()`; looks itself when neither ran yet."""
        if not self._seen and not self._damage:
            self.statuses()
        return list(self._damage.values())

    def records(self) -> Iterator[Record]:
        """All readable records in the order of their ids; damaged ones are left out and listed by `damaged()`.

        Their outcomes are there, and have their digest when `outcomes` reads them.
        """
        before, seen = self._seen, dict[str, _Seen]()
        for file in self._listing():
            self._damage.pop(file.id, None)
            record = self._look(file)
            if record is not None:
                known = before.get(file.id)
                seen[file.id] = known if known and known.stamp == file.stamp else _seen_as(record, file.stamp)
                yield record
        self._damage = {key: damage for key, damage in self._damage.items() if os.path.lexists(damage.path)}
        self._seen = seen

    def record(self, cell_id: str) -> Record:
        """The record of one cell; raises UnknownName when there is none, CorruptFile when it cannot be read."""
        try:
            return self._read(str(self.record_path(cell_id)))
        except FileNotFoundError as error:
            raise UnknownName(
                f"There is no record of cell '{cell_id}' in {self.path}.", hint="See: apd-bench list cells"
            ) from error

    def outcomes(self, cell_id: str, record: Record | None = None, *, extra: Collection[str] | None = None) -> Outcomes:
        """The per-sample outcomes of a successful cell, of their further columns only those in `extra` (None: all).

        Raises CorruptFile when file and record do not agree.
        """
        record = record or self.record(cell_id)
        if record.outcomes is None:
            raise UsageError(f"Cell {cell_id} has no outcomes: its status is {record.status}.")
        path = f"{self.cells}/{cell_id[:2]}/{record.outcomes['file']}"
        try:
            content = read_bytes(path)
        except OSError as error:
            raise CorruptFile(f"{path} cannot be read: {error.strerror}.") from error
        if sha256(content) != record.outcomes["sha256"]:
            raise CorruptFile(
                f"{path} is damaged: its digest is not the one in the record.",
                hint=f"Measure the cell again: apd-bench show {cell_id} --as-command, with --force.",
            )
        return Outcomes.from_bytes(
            content, source=path, shared=self._columns, extra=extra, samples=record.outcomes["n"]
        )

    def find(self, prefix: str) -> str:
        """The only cell id that starts with `prefix`; raises UnknownName or UsageError when none or several do."""
        found = [
            path.name.removesuffix(".json")
            for folder in self._folders()
            if _ID.fullmatch(prefix) and folder.name.startswith(prefix[:2])
            for path in folder.glob(f"{prefix}*.json")
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"'{prefix}' could be any of {len(found)} cells: {', '.join(sorted(found)[:8])}.")
        raise UnknownName(f"There is no cell '{prefix}' in {self.path}.", hint="See: apd-bench list cells")

    def record_path(self, cell_id: str) -> Path:
        """Where the record of a cell lies."""
        return self.cells / cell_id[:2] / f"{cell_id}.json"

    def fit_path(self, fit_id: str) -> Path:
        """Where the prompt state of a fit lies."""
        return self.fits / fit_id

    def has_fit(self, fit_id: str) -> bool:
        """Whether there is a folder for the fit; raises OtherSchema when a later version of this program wrote it."""
        try:
            content = read_bytes(f"{self.fits}/{fit_id}/{CARD}")
            stated = parse_json(content, constants=True).get("schema") if _NEWER_CARD.search(content) else STATE
        except (OSError, ValueError, AttributeError):
            return self.fit_path(fit_id).is_dir()  # what is wrong with it, if anything, `fit_problem` says
        refuse_other(stated or STATE, STATE, f"{self.fits}/{fit_id}/{CARD}")
        return True

    def fit_problem(self, fit_id: str) -> str | None:
        """None when the fit is there and every file has its digest, "" when there is none, else what is wrong."""
        path = self.fit_path(fit_id)
        if not self.has_fit(fit_id):
            return "it is no folder" if os.path.lexists(path) else ""
        try:
            manifest = parse_json((path / MANIFEST).read_bytes())
            if not isinstance(manifest, dict) or CARD not in manifest:
                return f"its {MANIFEST} lists no {CARD}"
            wrong = [name for name, value in manifest.items() if sha256((path / Path(name).name).read_bytes()) != value]
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        if wrong:
            return f"{wrong[0]} has another digest than when it was written"
        return None if self.card(fit_id).get("fit", fit_id) == fit_id else "its card is that of another fit"

    def card(self, fit_id: str) -> dict[str, Any]:
        """The card of a fit; empty when there is none to read."""
        try:
            card = parse_json(read_bytes(f"{self.fits}/{fit_id}/{CARD}"), constants=True)
        except (OSError, ValueError):
            return {}
        return card if isinstance(card, dict) else {}

    def fit_ids(self, prefix: str = "") -> list[str]:
        """The ids of the stored fits that start with `prefix`."""
        ids = (path.parent.name for path in self.fits.glob(f"*/{CARD}"))
        return sorted(name for name in ids if _ID.fullmatch(name) and name.startswith(prefix))

    def has_prompts_of(self, record: Record) -> bool:
        """Whether the prompts that `record` was measured with are the stored ones, by their digest.

        A fit that is trained again, on another machine or with another torch, may end at other prompts.
        """
        digest = self.card(record.cell.fit.id).get("digest")
        return isinstance(digest, str) and digest == record.fit.get("digest", digest)

    def checkpoint_path(self, cell_id: str) -> Path:
        """Where an attack on this cell may keep what it needs to go on."""
        return self.path / "checkpoints" / cell_id

    # ---------------------------------------------------------------- writing

    @contextmanager
    def writer(self, *, wait: bool = False, on_wait: Callable[[str], None] | None = None) -> "Iterator[Store]":
        """Holds the right to write; raises MissingPrerequisite when another process has it, or the place is closed."""
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            if not os.access(self.cells, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise explain(error, self.path) from error
        with exclusive_lock(self.path / ".lock", wait=wait, on_wait=on_wait):
            if not (self.path / ".gitignore").exists():
                atomic_write(self.path / ".gitignore", _IGNORED.encode())
            refused = False
            try:
                self._sweep()
                yield self
            except OtherSchema:
                refused = True
                raise
            finally:
                if not refused:  # a later version's index knows more than this one does
                    self._write_index()

    def put(self, record: Record, outcomes: Outcomes | None = None) -> Record:
        """Writes a record, its outcomes first, and returns it as written; a success is never replaced by less."""
        path = self.record_path(record.id)
        if not record.done:
            if record.id not in self._seen and path.exists():
                self.statuses()
            if record.id in self._seen and self._seen[record.id].status == "success":
                return record
        old = {found.name for found in path.parent.glob(f"{record.id}-*.npz")}
        if outcomes is not None:
            content = outcomes.to_bytes()
            mark = sha256(content)
            name = f"{record.id}-{mark[:8]}.npz"
            atomic_write(path.parent / name, content)
            old.discard(name)
            record = replace(record, outcomes={"file": name, "sha256": mark, "n": len(outcomes)})
        atomic_write(path, record.to_json().encode())
        for name in old:
            (path.parent / name).unlink(missing_ok=True)
        seen = _seen_as(record, _stamp(path))
        of_outcomes = _stamp(path.parent / seen.outcomes) if seen.outcomes else _UNSEEN
        self._seen[record.id] = replace(seen, outcomes_stamp=of_outcomes)
        self._damage.pop(record.id, None)
        return record

    def put_fit(self, fit_id: str, files: Mapping[str, bytes]) -> Path:
        """Writes the files of a fit, with their digests, as one folder that appears at once."""
        target = self.fit_path(fit_id)
        staging = self.fits / f".{fit_id}.{os.getpid()}.tmp"
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            for name, content in files.items():
                atomic_write(staging / name, content)
            manifest = {name: sha256(content) for name, content in sorted(files.items())}
            atomic_write(staging / MANIFEST, json.dumps(manifest, indent=1).encode())
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            elif os.path.lexists(target):
                self.set_aside(target)
            staging.rename(target)
            sync_folder(self.fits)
        except OSError as error:
            raise explain(error, target) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return target

    def set_aside(self, path: Path) -> Path:
        """Renames a file or folder that cannot be trusted to a free `*.damaged` name, and returns that."""
        target, number = path.with_name(f"{path.name}.damaged"), 1
        while os.path.lexists(target):
            number += 1
            target = path.with_name(f"{path.name}.{number}.damaged")
        try:
            path.rename(target)
        except OSError as error:
            raise explain(error, path) from error
        return target

    def set_damaged_aside(self) -> list[str]:
        """Moves aside what `damaged()` lists, and says in a sentence each what was wrong and where it lies now."""
        said = []
        for damage in self.damaged():
            moved = self.set_aside(damage.path)
            if damage.also is not None:
                self.set_aside(damage.also)
            said.append(f"{damage.reason.rstrip('.')}. Moved to {moved.name}; its cell counts as missing.")
        return said

    def drop_checkpoint(self, cell_id: str) -> None:
        """Removes what an attack kept to go on from, once its record is written."""
        shutil.rmtree(self.checkpoint_path(cell_id), ignore_errors=True)

    # ---------------------------------------------------------------- inside

    def _folders(self) -> list[Path]:
        try:
            entries = sorted(self.cells.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise MissingPrerequisite(f"Cannot read {self.cells}: {error.strerror}.") from error
        for entry in entries:
            if _FOLDER.fullmatch(entry.name) and not entry.is_dir():
                self._damage[entry.name] = Damage(entry.name, entry, f"{entry} is no folder")
        return [entry for entry in entries if entry.is_dir()]

    def _listing(self) -> Iterator[_File]:
        """Every record file in the order of ids, one folder after the other."""
        for folder in self._folders():
            try:
                entries = {entry.name: entry for entry in os.scandir(folder)}
            except OSError as error:
                raise MissingPrerequisite(f"Cannot read {folder}: {error.strerror}.") from error
            for name in sorted(name for name in entries if name.endswith(".json") and not name.startswith(".")):
                yield _File(name.removesuffix(".json"), entries[name].path, _stamp(entries[name]), entries)

    def _look(self, file: _File) -> Record | None:
        try:
            record = self._read(file.path)
        except CorruptFile as error:
            self._note_damage(file, file.path, error.message)
            return None
        except FileNotFoundError:
            if os.path.lexists(file.path):  # else a writer replaced it between the listing and now
                self._note_damage(file, file.path, f"{file.path} is a link to nothing")
            return None
        if record.id != file.id:
            self._note_damage(file, file.path, f"{file.path} holds the record of another cell, {record.id}")
            return None
        if record.outcomes is not None and record.outcomes["file"] not in file.files:
            self._note_damage(file, file.path, f"its outcomes {record.outcomes['file']} are missing")
            return None
        return record

    def _proven(self, file: _File, record: Record) -> _Seen | None:
        """What is known of a record whose outcomes have their digest; None, with the damage noted, otherwise."""
        seen = _seen_as(record, file.stamp)
        if record.outcomes is None:
            return seen
        entry = file.files[seen.outcomes]
        stamp = _stamp(entry)
        try:
            reason = "" if sha256(read_bytes(entry.path)) == record.outcomes["sha256"] else "its digest is another"
        except OSError as error:
            reason = str(error.strerror)
        if reason:
            self._note_damage(file, entry.path, f"{entry.path} is damaged: {reason}", Path(file.path))
            return None
        return replace(seen, outcomes_stamp=stamp)

    def _note_damage(self, file: _File, path: str, reason: str, also: Path | None = None) -> None:
        self._damage[file.id] = Damage(file.id, Path(path), reason, also)

    def _read(self, path: str) -> Record:
        try:
            return Record.from_json(read_bytes(path), source=path, parts=self._parts)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise CorruptFile(f"{path} cannot be read: {error.strerror}.") from error

    def _read_index(self) -> dict[str, _Seen]:
        try:
            stated, _, content = (self.path / ".index.json").read_bytes().partition(b"\n")
            data = json.loads(content)
            if sha256(content) != stated.decode() or (data["version"], data["schema"]) != (_INDEX_VERSION, RECORD):
                return {}  # another version has looked at records that this one may not be able to read
            return {key: _Seen(tuple(row[:3]), row[3], row[4], tuple(row[5:8])) for key, row in data["cells"].items()}
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
            return {}  # a cache: whatever is wrong with it, the records themselves are read instead

    def _write_index(self) -> None:
        cells = {
            key: [*item.stamp, item.status, item.outcomes, *item.outcomes_stamp]
            for key, item in sorted(self._seen.items())
        }
        content = json.dumps({"version": _INDEX_VERSION, "schema": RECORD, "cells": cells}).encode()
        content = f"{sha256(content)}\n".encode() + content
        with suppress(MissingPrerequisite):  # a full disk; the index only saves time, and the last one stays valid
            atomic_write(self.path / ".index.json", content)

    def _sweep(self) -> None:
        """Removes what killed writers left: temporary files and folders (the lock says that none is at work)."""
        for folder in (self.path, self.cells, self.fits, *self._folders()):
            if not folder.is_dir():
                continue
            for entry in folder.glob(".*.tmp"):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)


def _stamp(file: os.DirEntry[str] | Path) -> Stamp:
    """What changes with a file; `_UNSEEN` for a link to nothing."""
    try:
        stat = file.stat()
    except OSError:
        return _UNSEEN
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _is_whole(file: _File, known: _Seen) -> bool:
    """Whether outcomes that had their digest when they were last looked at did not change since."""
    entry = file.files.get(known.outcomes)
    return not known.outcomes or (entry is not None and _stamp(entry) == known.outcomes_stamp != _UNSEEN)


def _seen_as(record: Record, stamp: Stamp) -> _Seen:
    return _Seen(stamp, record.status, str(record.outcomes["file"]) if record.outcomes else "")
