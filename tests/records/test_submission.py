"""Archives are complete and repeatable, and nothing in a bad one gets past the checks."""

import gzip
import io
import json
import tarfile
from dataclasses import replace

import pytest
from synthetic import cell, dataset, fill, method, outcomes, record

from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite, OtherSchema, UsageError
from apd_bench.core.files import sha256
from apd_bench.leaderboard.boards import collect
from apd_bench.records import submission
from apd_bench.records.record import Record, sealed
from apd_bench.records.store import Store
from apd_bench.records.submission import check_records, disagreement, draw_cells, pack, unpack

METRICS = {"n": 3, "clean_accuracy": 2 / 3, "robust_accuracy": 1 / 3}


def made(path, *, fits=True, hits=([1, 1, 0], [1, 0, 0]), **changes):
    items = [
        (record(cell(method_spec=method(name)), **{"metrics": METRICS, **changes}), outcomes(*hits))
        for name in ("mine", "other")
    ]
    store = Store(fill(path, items))
    if fits:
        with store.writer():
            for one, _ in items:
                store.put_fit(one.cell.fit.id, {"card.json": b"{}", "state.safetensors": b"tensors"})
    return path


def rewritten(archive, target, changes):
    """The archive with some files replaced, added or (None) left out."""
    with tarfile.open(archive) as bundle:
        files = {name: bundle.extractfile(name).read() for name in bundle.getnames()}
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as bundle:
        for name, content in (files | changes).items():
            if content is not None:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                bundle.addfile(entry, io.BytesIO(content))
    target.write_bytes(gzip.compress(plain.getvalue()))
    return target


def test_packing_repeats_exactly_and_unpacks_to_the_same_records(tmp_path):
    store = made(tmp_path / "r")
    for name in ("a.tar.gz", "b.tar.gz"):
        assert pack([store], tmp_path / name, methods=["mine"], author="A", card="# Mine") == 1
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    manifest = unpack(tmp_path / "a.tar.gz", tmp_path / "u")
    assert (manifest["methods"], manifest["cells"], manifest["author"]) == (["mine"], 1, "A")
    assert len(manifest["files"]) == 2 + 3 + 1  # record and outcomes, the fit's card, tensors and list, and the card
    (found,) = check_records(Store(tmp_path / "u"))
    assert found.cell.fit.method.name == "mine"
    assert (tmp_path / "u" / "CARD.md").read_text() == "# Mine"
    assert Store(tmp_path / "u").fit_problem(found.cell.fit.id) is None


def test_nothing_to_pack_and_a_missing_prompt_state_are_explained(tmp_path):
    with pytest.raises(MissingPrerequisite, match="no finished cell of unheard"):
        pack([made(tmp_path / "r")], tmp_path / "a.tar.gz", methods=["unheard"], author="")
    with pytest.raises(MissingPrerequisite, match="not in the store"):
        pack([made(tmp_path / "s", fits=False)], tmp_path / "a.tar.gz", methods=[], author="")


@pytest.mark.parametrize("name", [
    "../evil.json", "/etc/evil", "cells/zz/x.json", "fits/00/../../x", "fits/00/..", "fits/00/x.py", "run.py",
    "cells/00/../../../evil.json", "submission.json/x", "CARD.md\n", "x" * 300,
])  # fmt: skip
def test_foreign_paths_are_refused(name, tmp_path):
    pack([made(tmp_path / "r")], tmp_path / "a.tar.gz", methods=[], author="")
    bad = rewritten(tmp_path / "a.tar.gz", tmp_path / "bad.tar.gz", {name: b"x"})
    with pytest.raises(CorruptFile, match="which no submission has"):
        unpack(bad, tmp_path / "u")
    assert not (tmp_path / "evil.json").exists()


def test_changed_missing_and_added_files_are_refused(tmp_path):
    pack([made(tmp_path / "r")], tmp_path / "a.tar.gz", methods=[], author="")
    with tarfile.open(tmp_path / "a.tar.gz") as bundle:
        state = next(name for name in bundle.getnames() if name.endswith("state.safetensors"))
    for changes in ({state: b"other"}, {state: None}, {"fits/00/more.json": b"x"}):
        bad = rewritten(tmp_path / "a.tar.gz", tmp_path / "bad.tar.gz", changes)
        with pytest.raises(CorruptFile, match="not as its list says"):
            unpack(bad, tmp_path / "u")
    (tmp_path / "no.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(CorruptFile, match="not a submission"):
        unpack(tmp_path / "no.tar.gz", tmp_path / "u")


def bundle_of(target, *entries):
    """An archive of headers alone."""
    plain = b"".join(entry.tobuf() for entry in entries) + b"\0" * 1024
    target.write_bytes(gzip.compress(plain))
    return target


def test_links_devices_and_announced_sizes_are_refused_before_anything_is_kept(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        entry = tarfile.TarInfo("CARD.md")
        entry.type, entry.linkname = kind, "/etc/passwd"
        with pytest.raises(CorruptFile, match="which no submission has"):
            unpack(bundle_of(tmp_path / "link.tar.gz", entry), tmp_path / "u")
    entry = tarfile.TarInfo("CARD.md")
    entry.size = 9 * 2**30
    with pytest.raises(CorruptFile, match="too large"):
        unpack(bundle_of(tmp_path / "large.tar.gz", entry), tmp_path / "u")
    assert not (tmp_path / "u").exists()


def test_a_bomb_is_refused_by_what_it_would_unpack_to(tmp_path, monkeypatch):
    pack([made(tmp_path / "r")], tmp_path / "a.tar.gz", methods=[], author="", card="\0" * 5_000_000)
    unpack(tmp_path / "a.tar.gz", tmp_path / "u")
    monkeypatch.setattr(submission, "ALWAYS_FINE", 2**20)
    with pytest.raises(CorruptFile, match="too large"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "v")
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize(
    "manifest",
    [None, b"[]", b"{}", b"[" * 100_000, b'{"files": 1}', b"\xff",
     b'{"schema": 1, "files": {}, "methods": 3}', b'{"schema": 1, "schema": 1}',
     b'{"schema": 1, "files": {}, "methods": [], "author": 1, "cells": 0}',
     b'{"schema": 1, "files": {}, "methods": [], "author": "", "cells": NaN}'],
)  # fmt: skip
def test_a_strange_list_is_refused(manifest, tmp_path):
    pack([made(tmp_path / "r")], tmp_path / "a.tar.gz", methods=[], author="")
    bad = rewritten(tmp_path / "a.tar.gz", tmp_path / "bad.tar.gz", {"submission.json": manifest})
    with pytest.raises(CorruptFile, match="is not a submission"):
        unpack(bad, tmp_path / "u")


@pytest.mark.parametrize("schema", [2, 99])
@pytest.mark.parametrize("part", ["submission.json", "cells"])
def test_an_archive_of_another_version_is_said_to_be_one(schema, part, tmp_path):
    pack([made(tmp_path / "r")], tmp_path / "a.tar.gz", methods=[], author="")
    unpack(tmp_path / "a.tar.gz", tmp_path / "u")
    manifest = json.loads((tmp_path / "u" / "submission.json").read_text())
    changes = {}
    if part == "cells":
        path = min((tmp_path / "u" / "cells").glob("*/*.json"))
        name = str(path.relative_to(tmp_path / "u"))
        changes[name] = content = sealed(json.loads(path.read_text()) | {"schema": schema}).encode()
        manifest["files"][name] = sha256(content)
    else:
        manifest["schema"] = schema - 2  # 0 or 97
    changes["submission.json"] = json.dumps(manifest).encode()
    bad = rewritten(tmp_path / "a.tar.gz", tmp_path / "bad.tar.gz", changes)
    wrote = "later" if schema == 99 else "earlier"
    said = f"^The archive: {part}.* was written by an? {wrote} .*Check it with"
    with pytest.raises(OtherSchema, match=said) as caught:
        unpack(bad, tmp_path / "v")
        check_records(Store(tmp_path / "v"))
    assert str(tmp_path) not in str(caught.value)


def test_a_torn_or_flipped_archive_is_refused(tmp_path):
    pack([made(tmp_path / "r")], tmp_path / "a.tar.gz", methods=[], author="")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    middle = len(whole) // 2
    for content in (whole[:middle], whole[:middle] + b"\xff" * 40 + whole[middle + 40 :], b""):
        (tmp_path / "bad.tar.gz").write_bytes(content)
        with pytest.raises(CorruptFile):
            unpack(tmp_path / "bad.tar.gz", tmp_path / "u")


def test_an_accepted_better_attack_lowers_the_entry_and_keeps_both(tmp_path):
    weak = (record(cell(method_spec=method("mine"))), outcomes([1, 1, 1], [1, 1, 0]))
    other = (record(cell(method_spec=method("other"))), outcomes([1, 1, 1], [1, 0, 0]))
    strong = (record(cell(method_spec=method("mine"), attack="fab")), outcomes([1, 1, 1], [0, 1, 0]))
    mine, theirs = fill(tmp_path / "board", [weak, other]), fill(tmp_path / "sent", [strong])
    (table,) = collect([mine, theirs]).tables
    assert (table.attacks, table.incomplete) == (("pgd",), ())
    row = next(row for row in table.ranked if row.method == "mine")
    assert {name: round(3 * row.estimates[name].value) for name in ("pgd", "worst")} == {"pgd": 2, "worst": 1}
    assert "further attack fab, which broke 1 more" in row.notes[0]


def test_records_that_claim_more_than_their_samples_show_are_refused(tmp_path):
    lucky = made(tmp_path / "r", hits=([0, 1, 1], [1, 0, 0]))
    with pytest.raises(CorruptFile, match="counts misclassified ones as robust"):
        check_records(Store(lucky))


@pytest.mark.parametrize("name", ["n", "clean_accuracy", "robust_accuracy"])
@pytest.mark.parametrize("claim", [0.9, float("nan"), float("inf"), None, "0.3", True, [1], 10.0**300])
def test_a_claim_that_is_not_what_the_samples_say_is_refused(tmp_path, name, claim):
    path = made(tmp_path / "r", metrics=METRICS | {name: claim})
    with pytest.raises(CorruptFile, match=name):
        check_records(Store(path))


@pytest.mark.parametrize(("status", "fits", "said"), [("error", True, "is no success"), ("success", False, "missing")])
def test_what_is_no_success_or_has_no_prompts_is_refused(tmp_path, status, fits, said):
    with pytest.raises(CorruptFile, match=said):
        check_records(Store(made(tmp_path / "r", fits=fits, status=status)))


def test_no_records_no_draw_and_a_record_under_another_cells_name_are_refused(tmp_path):
    with pytest.raises(CorruptFile, match="holds no records"):
        check_records(Store(tmp_path))
    with pytest.raises(UsageError, match="would say nothing"):
        draw_cells([record(cell())], 0, 0)
    one = record(cell())
    moved = Record(id=one.id, cell=replace(one.cell, limit=5), status="success")
    with pytest.raises(CorruptFile, match=r"its id is .*, but its cell is"):
        check_records(Store(fill(tmp_path / "r", [(moved, outcomes([1], [1]))])))


def test_other_or_unknown_contents_cannot_be_repeated():
    with pytest.raises(IncompatibleChoice, match="another version"):
        draw_cells([record(cell())], 1, 0)
    with pytest.raises(IncompatibleChoice, match="cannot repeat a cell: Unknown dataset 'unheard'"):
        draw_cells([record(cell(data=dataset("unheard")))], 1, 0)


def test_disagreement_counts_samples():
    one, other = outcomes([1, 1, 1], [1, 1, 0]), outcomes([1, 1, 1], [1, 0, 0])
    assert disagreement(cell(), one, one, 0) is None
    assert disagreement(cell(), one, other, 1) is None
    found = disagreement(cell(), one, other, 0)
    assert (found.samples, found.submitted, found.measured) == (1, 2, 1)
    assert disagreement(cell(), one, outcomes([1, 1, 1], [1, 1, 0], prefix="other"), 2).samples == 3
