"""The store never shows half a record, loses nothing, and has one writer."""

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import synthetic

from apd_bench.core import files
from apd_bench.core.errors import CorruptFile, MissingPrerequisite, OtherSchema, UnknownName, UsageError
from apd_bench.core.files import atomic_write, exclusive_lock, sha256
from apd_bench.core.specs import DatasetSpec
from apd_bench.records.record import Record, sealed
from apd_bench.records.store import Store


def make_record(number=0, status="success"):
    data = DatasetSpec(name="shapes", template="a {}.")
    spec = synthetic.cell(data=data, method_spec=synthetic.method(trains=False), limit=number + 1)
    return Record(id=spec.id, cell=spec, status=status, metrics={"n": 3} if status == "success" else {})


def make_outcomes(shift=0):
    made = synthetic.outcomes([1, 1, 1], [1, 0, 1])
    return replace(made, adversarial_prediction=np.asarray([0, 1, 2]) + shift)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def test_what_is_put_is_what_is_read_and_the_outcomes_of_what_was_replaced_are_gone(store):
    with store.writer():
        written = store.put(make_record(), make_outcomes())
    again = Store(store.path)
    assert list(again.records()) == [written]
    assert again.outcomes(written.id).broken.tolist() == [False, True, False]
    assert again.statuses() == {written.id: "success"}
    with store.writer():
        store.put(make_record(), make_outcomes())
        record = store.put(make_record(), make_outcomes(shift=1))
    assert [path.name for path in store.cells.rglob("*.npz")] == [record.outcomes["file"]]
    assert store.outcomes(record.id).adversarial_prediction.tolist() == [1, 2, 3]


def test_a_success_is_never_replaced_by_an_error(store):
    with store.writer():
        good = store.put(make_record(), make_outcomes())
        store.put(make_record(status="error"))
        store.put(make_record(status="cancelled"))
    assert store.record(good.id) == good
    with Store(store.path).writer() as fresh:  # one that has not read anything yet
        fresh.put(make_record(status="error"))
    assert store.record(good.id) == good


def test_a_record_under_a_wrong_name_is_damaged(store):
    with store.writer():
        record = store.put(make_record(), make_outcomes())
    path = store.record_path(record.id)
    path.rename(path.with_name("00000000000000ff.json"))
    fresh = Store(store.path)
    assert fresh.statuses() == {}
    assert "another cell" in fresh.damaged()[0].reason


def test_a_record_whose_outcomes_are_missing_is_damaged(store):
    with store.writer():
        record = store.put(make_record(), make_outcomes())
    next(store.cells.rglob("*.npz")).unlink()
    for candidate in (Store(store.path), store):
        assert candidate.statuses() == {}
        assert [damage.id for damage in candidate.damaged()] == [record.id]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def to_nothing(path):
    path.unlink()
    path.symlink_to("nowhere")


def to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


def to_folder(path):
    path.unlink()
    path.mkdir()


def torn(path):
    path.write_bytes(path.read_bytes()[:40])


DAMAGES = [flip, torn, to_nothing, to_itself, to_folder, lambda path: path.write_bytes(b"")]


def test_outcomes_with_a_flipped_bit_are_refused(store):
    with store.writer():
        record = store.put(make_record(), make_outcomes())
    flip(next(store.cells.rglob("*.npz")))
    with pytest.raises(CorruptFile, match="digest"):
        store.outcomes(record.id)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("indexed", [True, False])
def test_whatever_is_damaged_counts_as_missing_and_is_moved_aside(store, suffix, damage, indexed):
    with store.writer():
        record = store.put(make_record(), make_outcomes())
        other = store.put(make_record(1), make_outcomes())
    path = next(store.cells.rglob(f"{record.id}*{suffix}"))
    damage(path)
    if not indexed:
        (store.path / ".index.json").unlink()
    again = Store(store.path)
    with again.writer():
        assert again.statuses() == {other.id: "success"}
        assert suffix == ".npz" or [item.id for item in again.records()] == [other.id]
        assert [item.path for item in again.damaged()] == [path]
        (said,) = again.set_damaged_aside()
        assert "counts as missing" in said and path.name in said
        again.put(record, make_outcomes())
    assert again.statuses() == Store(store.path).statuses() == {record.id: "success", other.id: "success"}
    assert os.path.lexists(path.with_name(f"{path.name}.damaged"))


def test_what_takes_the_place_of_a_folder_is_moved_aside(store):
    folder = store.record_path(make_record().id).parent
    folder.parent.mkdir(parents=True)
    folder.symlink_to("nowhere")
    with store.writer():
        assert store.statuses() == {} and "is no folder" in store.set_damaged_aside()[0]
        store.put(make_record(), make_outcomes())
    assert len(Store(store.path).statuses()) == 1


@pytest.mark.parametrize("damage", [to_nothing, to_itself, flip, lambda path: path.write_bytes(b"")])
def test_a_damaged_fit_is_replaced_and_kept(store, damage):
    files = {"card.json": b'{"fit": "f1"}', "state.safetensors": b"12345"}
    for name in ("card.json", "state.safetensors", "manifest.json", "."):
        with store.writer():
            path = store.put_fit("f1", files) / name
            if name == ".":
                if damage not in (to_nothing, to_itself):
                    continue
                shutil.move(path, path.with_name("f2"))
                path.touch()
            damage(path)
            assert store.fit_problem("f1")
            store.set_aside(store.fit_path("f1"))
            store.put_fit("f1", files)
            assert store.fit_problem("f1") is None


@pytest.mark.parametrize(
    "manifest", [b"{}", b"[]", b'{"card.json": 1}', b'{"card.json": "", "card.json": ""}', b"[" * 9999]
)
def test_a_fit_whose_list_lists_something_else_is_damaged(store, manifest):
    with store.writer():
        (store.put_fit("f1", {"card.json": b"{}", "state.safetensors": b"1"}) / "manifest.json").write_bytes(manifest)
        assert store.fit_problem("f1")
        store.put_fit("f2", {"card.json": b'{"fit": "f1"}'})
        assert "another fit" in str(store.fit_problem("f2"))


def test_what_a_later_version_wrote_is_refused_and_is_no_damage(store):
    with store.writer():
        record = store.put(make_record(), make_outcomes())
        store.put_fit("f", {"card.json": b'{"schema": 1}'})
    path, index = store.record_path(record.id), store.path / ".index.json"
    path.write_text(sealed(json.loads(path.read_text()) | {"schema": 4}))
    known = json.loads(index.read_bytes().partition(b"\n")[2])
    known["cells"][record.id][:3] = [path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns]
    content = json.dumps(known | {"schema": 4}).encode()  # the later version has looked at its own record
    index.write_bytes(sha256(content).encode() + b"\n" + content)
    written = index.read_bytes()
    (store.fit_path("f") / "card.json").write_bytes(b'{"schema": 2}')
    later = Store(store.path)
    readings = [
        later.statuses, later.damaged, lambda: list(later.records()), lambda: later.record(record.id),
        lambda: later.has_fit("f"), lambda: later.fit_problem("f"),
    ]  # fmt: skip
    for reading in readings:
        with pytest.raises(OtherSchema, match=r"its schema is [24]"):
            reading()
    with pytest.raises(OtherSchema), later.writer():
        later.statuses()
    assert index.read_bytes() == written and path.exists() and not list(store.path.rglob("*.damaged"))


def test_reading_some_records_forgets_no_damage_and_reading_all_finds_it(store):
    with store.writer():
        written = [store.put(make_record(number), make_outcomes()) for number in range(5)]
    torn = store.record_path(max(record.id for record in written))
    torn.write_text("{")
    reader = Store(store.path)
    assert len(reader.statuses()) == 4 and next(iter(reader.records()))
    assert [damage.path for damage in reader.damaged()] == [torn]
    reader = Store(store.path)
    assert [record.id for record in reader.records()] == sorted(record.id for record in written)[:4]
    assert [damage.path for damage in reader.damaged()] == [torn]
    torn.unlink()
    assert len(list(reader.records())) == 4 and not reader.damaged()


def test_moving_aside_keeps_every_damaged_version(store):
    with store.writer():
        record = store.put(make_record(), make_outcomes())
        path = store.record_path(record.id)
        names = []
        for text in ("first", "second"):
            path.write_text(text)
            names.append(store.set_aside(path))
    assert [name.read_text() for name in names] == ["first", "second"]
    assert Store(store.path).statuses() == {}


def test_the_index_only_saves_time(store):
    with store.writer():
        record = store.put(make_record(), make_outcomes())
    index = store.path / ".index.json"
    for content in (b"", b"{", b'{"version": 2, "cells": {"x": [1]}}', b"[]", b"[" * 9999, index.read_bytes()):
        index.write_bytes(content)
        assert Store(store.path).statuses() == {record.id: "success"}


def test_the_index_is_not_fooled_by_a_clock_that_jumps(store):
    with store.writer():
        record = store.put(make_record(), make_outcomes())
    path = store.record_path(record.id)
    before = path.stat()
    for when in (0, 2**33):
        with Store(store.path).writer() as writer:
            torn = b"x" * before.st_size
            atomic_write(path, torn)
            os.utime(path, ns=(when, when))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert writer.statuses() == {}  # same name, size and time, other content


def test_a_killed_writer_leaves_nothing_but_temporary_files_that_the_next_one_removes(store):
    with store.writer():
        record = store.put(make_record(), make_outcomes())
    folder = store.record_path(record.id).parent
    (folder / ".half.json.99999.tmp").write_text("{")
    (store.fits / ".half.99999.tmp").mkdir(parents=True)
    assert Store(store.path).statuses() == {record.id: "success"}
    with store.writer():
        assert not list(store.path.rglob("*.tmp"))


def test_the_next_writer_of_a_file_removes_what_killed_ones_left(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    host = files._HOST
    names = [f".x.md.{host}-{gone.pid}.tmp", f".x.md.{host}-{os.getppid()}.tmp", f".y.md.{host}-{gone.pid}.tmp",
             f".x.md.elsewhere-{gone.pid}.tmp"]  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    atomic_write(tmp_path / "x.md", b"board")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], "x.md"])


@contextmanager
def held(store, seconds):
    """Another process that writes to the store for so long."""
    script = (
        "import time; from apd_bench.records.store import Store\n"
        f"with Store({str(store.path)!r}).writer():\n    print('held', flush=True); time.sleep({seconds})"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        yield holder


def test_a_second_writer_is_refused_by_name_or_waits_for_its_turn(store):
    with held(store, 60) as holder:
        with pytest.raises(MissingPrerequisite, match=f"process {holder.pid}"), store.writer():
            pass
        holder.kill()
    began, waiting = time.monotonic(), []
    with store.writer(wait=True):  # a killed process holds nothing
        assert time.monotonic() - began < 5
    with held(store, 0.5), store.writer(wait=True, on_wait=waiting.append):
        store.put(make_record(), make_outcomes())
    assert len(waiting) == 1 and "waiting" in waiting[0]


def test_a_full_disk_is_one_sentence_and_the_old_content_stays(store, monkeypatch):
    with store.writer():
        record = store.put(make_record(), make_outcomes())

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(MissingPrerequisite, match="disk is full"):
        store.put(make_record(1), make_outcomes())
    monkeypatch.undo()
    assert not list(store.cells.rglob("*.tmp"))
    assert Store(store.path).statuses() == {record.id: "success"}


def test_a_lock_that_finds_the_disk_full_is_one_sentence_and_nonsense_in_it_is_overwritten(tmp_path, monkeypatch):
    def full(handle, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / ".lock").write_text("nonsense")
    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(MissingPrerequisite, match=r"disk is full: .*\.lock"), exclusive_lock(tmp_path / ".lock"):
        pass
    monkeypatch.undo()
    with exclusive_lock(tmp_path / ".lock"):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_closed_folder_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MissingPrerequisite, match="Permission denied"), Store(tmp_path / "results").writer():
        pass


def test_a_fit_appears_at_once_and_its_damage_is_noticed(store):
    with store.writer():
        assert store.fit_problem("f1") == ""
        store.put_fit("f1", {"card.json": b"{}", "state.safetensors": b"12345"})
        assert store.fit_problem("f1") is None
        store.put_fit("f1", {"card.json": b"{}", "state.safetensors": b"67890"})
        assert (store.fit_path("f1") / "state.safetensors").read_bytes() == b"67890"
        (store.fit_path("f1") / "state.safetensors").write_bytes(b"6789")
        assert "digest" in str(store.fit_problem("f1"))
        (store.fit_path("f1") / "card.json").unlink()
        assert "card.json" in str(store.fit_problem("f1"))


def test_a_cell_is_found_by_the_start_of_its_id(store):
    with store.writer():
        records = [store.put(make_record(number), make_outcomes()) for number in range(4)]
    assert store.find(records[0].id[:10]) == records[0].id
    with pytest.raises(UnknownName, match="zzz"):
        store.find("zzz")
    shared = [record.id for record in records if record.id[0] == records[0].id[0]]
    if len(shared) > 1:
        with pytest.raises(UsageError, match="could be any of"):
            store.find(records[0].id[0])


def test_an_empty_store_is_empty_and_what_is_missing_is_said(store):
    assert not store.exists()
    assert store.statuses() == {}
    assert list(store.records()) == store.damaged() == []
    with store.writer():
        record = store.put(make_record(status="error"))
    with pytest.raises(UnknownName, match="no record"):
        store.record("0" * 16)
    with pytest.raises(UsageError, match="has no outcomes"):
        store.outcomes(record.id)


def _write_many(path, start):
    with Store(path).writer(wait=True) as store:
        for number in range(start, start + 20):
            store.put(make_record(number), make_outcomes())


def test_two_processes_that_wait_for_one_another_lose_nothing(store):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(str(store.path), start)) for start in (0, 10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == 0
    assert len(store.statuses()) == 30
    assert len(list(Store(store.path).records())) == 30
