"""Records and outcomes survive the way to disk and back, and say so when they do not."""

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
import synthetic

from apd_bench.core.errors import CorruptFile, OtherSchema
from apd_bench.core.specs import DatasetSpec, ThreatModel
from apd_bench.records.interning import Parts
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import Record, json_form, sealed


def make_cell(**changes):
    recipe = synthetic.method("apt", needs=("text_tokens",), training={"epochs": 2})
    data = DatasetSpec(name="shapes", template="a {}.", counts={"test": 40})
    return replace(synthetic.cell(method_spec=recipe, data=data, fit={"train_eps": 2 / 255}, limit=4), **changes)


def make_outcomes(n=4, offset=0, **extra):
    ids = [f"s{offset + row:03d}" for row in range(n)]
    return Outcomes(
        sample_id=ids, label=np.arange(n), clean_prediction=np.arange(n), adversarial_prediction=np.zeros(n),
        broken=np.arange(n) > 0, extra=extra or {"distance": np.full(n, 0.5)},
    )  # fmt: skip


def make_record(**changes):
    metrics = {"n": 4, "clean_accuracy": 1.0, "robust_accuracy": 0.25}
    return replace(synthetic.record(make_cell(), metrics=metrics, suspect=("zero gradients",)), **changes)


def test_a_record_is_the_same_after_a_round_trip_and_only_success_is_done():
    record = make_record()
    again = Record.from_json(record.to_json())
    assert again == record
    assert again.cell.id == record.id
    record = make_record()
    assert Record.from_json(record.to_json().replace("\n", "\r\n")) == record
    assert make_record().done
    assert not make_record(status="cancelled").done
    with pytest.raises(Exception, match="Record status 'fine'"):
        make_record(status="fine")


def test_places_on_this_machine_stay_out_of_the_record_and_the_identity_is_kept():
    cell = make_cell()
    dataset = replace(cell.dataset, options={"path": "/home/me/x.npz", "root": "/data", "level": 3})
    method = replace(cell.fit.method, sources={"training.epochs": "paper"}, state="/home/me/method")
    cell = replace(cell, dataset=dataset, fit=replace(cell.fit, method=method, dataset=dataset))
    text = make_record(id=cell.id, cell=cell).to_json()
    assert "/home" not in text and "/data" not in text
    assert Record.from_json(text).cell.id == cell.id
    assert Record.from_json(text).cell.dataset.options == {"level": 3}


def test_keys_are_sorted_and_values_have_one_spelling_each():
    data = json.loads(make_record(diagnostics={"b": np.float32(0.5), "a": np.int64(3)}).to_json())
    assert list(data) == sorted(data)
    assert data["diagnostics"] == {"a": 3, "b": 0.5}
    assert data["cell"]["threat"]["eps"] == pytest.approx(2 / 255)
    assert json_form({"nan": float("nan"), "inf": np.float64("inf"), "set": {2, 1}}) == {
        "nan": None,
        "inf": "inf",
        "set": [1, 2],
    }
    with pytest.raises(TypeError, match="no place in a record"):
        json_form(object())


def test_a_record_has_a_line_for_each_part_and_is_read_in_its_older_layout():
    record = make_record()
    text = record.to_json()
    assert len(text.splitlines()) == len(json.loads(text)) + 2
    indented = json.dumps(json.loads(text) | {"digest": "0" * 64}, sort_keys=True, indent=1) + "\n"
    digest = hashlib.sha256(indented.replace("0" * 64, "").encode()).hexdigest()
    assert Record.from_json(indented.replace("0" * 64, digest)) == record


@pytest.mark.parametrize("cut", [0, 1, 200, -3])
def test_a_torn_record_is_corrupt_and_named(cut):
    text = make_record().to_json()
    torn = text[:cut] if cut >= 0 else text[: len(text) + cut]
    with pytest.raises(CorruptFile, match=r"abc\.json is damaged"):
        Record.from_json(torn, source="abc.json")


def test_a_newer_schema_and_an_unknown_field_are_refused():
    data = json.loads(make_record().to_json()) | {"schema": 99, "what_this_version_does_not_know": 1}
    data["cell"]["fit"]["method"]["surprise"] = 1
    for text in (json.dumps(data), json.dumps(data, sort_keys=True, indent=1)):
        with pytest.raises(OtherSchema, match=r"abc\.json was written by a later apd-bench: its schema is 99.* is 3\."):
            Record.from_json(text, source="abc.json")
    data = json.loads(make_record().to_json())
    data["cell"]["surprise"] = 1
    with pytest.raises(CorruptFile, match="surprise"):
        Record.from_json(sealed(data))


@pytest.mark.parametrize(("key", "value"), [
    ("status", 3), ("status", "fine"), ("suspect", "masked"), ("suspect", [1]), ("metrics", []), ("created", None),
    ("error", "text"), ("outcomes", {"file": "../x.npz", "sha256": "", "n": 1}), ("outcomes", {}), ("id", "00ff"),
    ("id", None), ("fit", None), ("surprise", 1),
])  # fmt: skip
def test_a_record_with_a_value_of_another_kind_is_refused_whatever_its_digest(key, value):
    with pytest.raises(CorruptFile, match="is damaged"):
        Record.from_json(sealed({**json.loads(make_record().to_json()), key: value}))


@pytest.mark.parametrize("path", ["threat.eps", "fit.seed", "attack.options", "fit.method.training", "limit", "fit"])
@pytest.mark.parametrize("value", ["4/255", [], True])
def test_a_cell_with_a_field_of_another_type_is_refused(path, value):
    data = json.loads(make_record().to_json())
    *steps, last = path.split(".")
    place = data["cell"]
    for step in steps:
        place = place[step]
    place[last] = value
    with pytest.raises(CorruptFile, match="is damaged"):
        Record.from_json(sealed(data))


@pytest.mark.parametrize("schema", [1, 2])
def test_a_record_of_an_older_schema_is_refused_and_named(schema):
    data = json.loads(make_record().to_json()) | {"schema": schema}
    text = sealed(data) if schema == 2 else json.dumps({key: data[key] for key in data if key != "digest"}, indent=1)
    said = rf"abc\.json was written by an earlier apd-bench: its schema is {schema}, .* reads 3"
    with pytest.raises(OtherSchema, match=said):
        Record.from_json(text, source="abc.json")


@pytest.mark.parametrize("sign", ["0", "9", "x", '"', " ", "\\"])
def test_no_changed_letter_or_digit_of_a_record_goes_unnoticed(sign):
    text = make_record().to_json()
    for place in range(0, len(text), 5):
        if text[place] != sign:
            with pytest.raises((CorruptFile, OtherSchema)):  # "schema":93 is one of a later version
                Record.from_json(text[:place] + sign + text[place + 1 :])


@pytest.mark.parametrize("samples", [0, 1, 7])
def test_we_and_numpy_read_what_was_written_and_the_bytes_do_not_vary(samples):
    outcomes = make_outcomes(samples, distance=np.linspace(0, 1, samples, dtype=np.float32))
    content = outcomes.to_bytes()
    again = Outcomes.from_bytes(content)
    assert again.to_bytes() == content
    ours, written = dict(again.columns()), dict(outcomes.columns())
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert set(arrays.files) == set(ours) == set(written)
        for name in arrays.files:
            for found in (arrays[name], ours[name]):
                np.testing.assert_array_equal(found, written[name])
                assert found.dtype == written[name].dtype


def test_outcomes_that_would_run_code_or_have_columns_of_unequal_length_are_refused():
    buffer = io.BytesIO()
    np.savez(buffer, sample_id=np.asarray([{"a": 1}], dtype=object))
    with pytest.raises(CorruptFile, match="objects"):
        Outcomes.from_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="unequal length"):
        make_outcomes(distance=np.zeros(3))


@pytest.mark.parametrize("keep", [0, 10, 100, 500])
def test_torn_outcomes_are_corrupt_and_named(keep):
    with pytest.raises(CorruptFile, match=r"x\.npz cannot be read"):
        Outcomes.from_bytes(make_outcomes().to_bytes()[:keep], source="x.npz")


def test_shards_merge_into_the_order_of_the_cell_whatever_order_they_finish_in():
    first, second = make_outcomes(3), make_outcomes(2, offset=3)
    order = [f"s{row:03d}" for row in range(5)]
    merged = Outcomes.merge([second, first], order)
    assert merged.sample_id.tolist() == order
    assert merged.broken.tolist() == [False, True, True, False, True]
    with pytest.raises(ValueError, match="overlap"):
        Outcomes.merge([first, first], order)
    with pytest.raises(ValueError, match="cover"):
        Outcomes.merge([first], order)


def test_records_that_share_their_parts_are_the_records_that_do_not():
    parts = Parts()
    source = replace(make_cell().fit, seed=7)
    threat = ThreatModel(eps=2 / 255, knowledge="transfer", source="apt")
    cells = [make_cell(), make_cell(limit=3), make_cell(source=source, threat=threat, limit=1)]
    records = [make_record(id=cell.id, cell=cell, environment={"threads": 1}) for cell in cells]
    read = [Record.from_json(record.to_json(), parts=parts) for record in records]
    assert read == records
    assert read[0].cell.dataset is read[1].cell.dataset is read[2].cell.dataset
    assert read[0].cell.fit is read[1].cell.fit


def test_records_with_keys_of_features_that_are_gone_are_read():
    effective = {"accelerate": {"asked": "auto", "used": "off"}, "smaller_budget": {"cell": "x", "eps": 0.01}}
    record = make_record(effective=effective, fit={"digest": "d", "trained_together": [1, 2]})
    assert Record.from_json(record.to_json()) == record
    content = make_outcomes(smaller_budget=np.array([False, True, True, False])).to_bytes()
    assert Outcomes.from_bytes(content).extra["smaller_budget"].tolist() == [False, True, True, False]


@pytest.mark.parametrize("schema", [None, "1", [1], {}])
def test_what_states_no_schema_is_damaged(schema):
    data = json.loads(make_record().to_json()) | {"schema": schema}
    with pytest.raises(CorruptFile, match="not a record"):
        Record.from_json(json.dumps(data))


def test_equal_ids_of_many_files_are_one_array_that_nobody_can_change():
    shared = {}
    first, second = (
        Outcomes.from_bytes(make_outcomes(distance=np.full(4, value)).to_bytes(), shared=shared) for value in (1.0, 2.0)
    )
    assert first.sample_id is second.sample_id and first.label is second.label
    assert first.extra["distance"][0] != second.extra["distance"][0]
    with pytest.raises(ValueError, match="read-only"):
        first.label[0] = 3


@pytest.mark.parametrize("place", range(0, 900, 7))
def test_no_flipped_bit_of_an_outcomes_file_changes_a_value_in_silence(place):
    outcomes = make_outcomes()
    content = bytearray(outcomes.to_bytes())
    content[place % len(content)] ^= 1
    try:
        again = Outcomes.from_bytes(bytes(content))
    except CorruptFile:
        return
    for (_, left), (_, right) in zip(outcomes.columns(), again.columns(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_outcomes_are_no_larger_than_their_samples_need(monkeypatch):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("label.npy", bytes(20 * 2**20))
    monkeypatch.setattr(zlib, "decompressobj", None)  # nothing may be inflated
    for content in (bomb.getvalue(), bomb.getvalue() + b"more"):
        with pytest.raises(CorruptFile, match=r"would take 20,971,520 bytes"):
            Outcomes.from_bytes(content)
    with pytest.raises(CorruptFile, match=r"at most 122,880 are read"):
        Outcomes.from_bytes(bomb.getvalue(), samples=14)
    monkeypatch.undo()
    with pytest.raises(CorruptFile, match="it holds 4 samples, not 5"):
        Outcomes.from_bytes(make_outcomes().to_bytes(), samples=5)


def test_further_columns_are_read_on_demand_from_any_archive():
    content = make_outcomes(distance=np.zeros(4), margin=np.ones(4)).to_bytes()
    assert set(Outcomes.from_bytes(content, extra=("margin", "none")).extra) == {"margin"}
    assert set(Outcomes.from_bytes(content).extra) == {"distance", "margin"}
    content = io.BytesIO(make_outcomes().to_bytes())
    with zipfile.ZipFile(content, "a") as archive:
        archive.comment = b"packed again"
    np.testing.assert_array_equal(Outcomes.from_bytes(content.getvalue()).label, np.arange(4))
