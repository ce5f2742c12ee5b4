"""Hours and megabytes follow from measured passes, and a plan that knows no speed says so."""

from dataclasses import replace

import pytest
from fakes import make_plan

from apd_bench.backbones.configs import model_config
from apd_bench.core.cache import cache_value, cached_values
from apd_bench.core.errors import MissingPrerequisite
from apd_bench.core.registry import BACKBONES
from apd_bench.records.record import Record
from apd_bench.runner import speed
from apd_bench.runner.estimate import passes_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APD_BENCH_CACHE", str(tmp_path / "cache"))


def record(seconds, forwards, backwards):
    cell = make_plan().cells[0]
    timing = {"attack_seconds": seconds, "forwards": forwards, "backwards": backwards}
    return Record(id=cell.id, cell=cell, status="success", timing=timing)


def test_records_of_this_device_tell_the_seconds_of_a_pass_and_others_nothing():
    (name,) = found = speed.speeds_of([record(3.0, 100, 100), record(3.0, 100, 100)], "cpu")
    assert name == "fake"
    assert found[name].forward == pytest.approx(0.01) and found[name].backward == pytest.approx(0.02)
    assert found[name].seconds((100, 100)) == pytest.approx(3.0)
    assert speed.speeds_of([record(3.0, 10, 10), record(0.0, 1000, 1000)], "cpu") == {}
    gpu = replace(record(1.0, 1000, 0), environment={"device": "cuda:1"})
    assert speed.speeds_of([gpu, record(3.0, 100, 100)], "cpu") == speed.speeds_of([record(3.0, 100, 100)], "cpu")
    assert speed.speeds_of([gpu, record(3.0, 100, 100)], "cuda")["fake"].forward == pytest.approx(0.001)


@pytest.mark.parametrize(("name", "expected"), [("ViT-B-16", 17.6e9), ("ViT-B-32", 4.4e9), ("ViT-L-14", 81.1e9)])
def test_the_arithmetic_of_towers_is_the_published_one(name, expected):
    config = model_config(name)
    assert config is not None and speed.forward_operations(config) == pytest.approx(2 * expected, rel=0.05)


def test_hours_on_a_named_gpu_are_marked_as_an_estimate():
    spec = BACKBONES.get("ViT-B-16-quickgelu/openai")
    fp32, tf32 = (speed.estimated(spec, "a100", precision) for precision in ("fp32", "tf32"))
    assert fp32 is not None and tf32 is not None and fp32.forward == pytest.approx(8 * tf32.forward)
    assert "estimate" in fp32.source and "nothing was measured" in fp32.source
    assert speed.estimated(BACKBONES.get("RN50-quickgelu/openai"), "a100", "fp32") is None


def test_work_is_the_sum_over_cells_and_fits_and_disk_grows_with_them():
    plan = make_plan()
    cells, fits = list(plan.cells), list(plan.fits.values())
    known = {"fake": speed.Speed(0.5, 1.0, "a test")}
    expected = sum(0.5 * f + b for f, b in map(passes_of, [*cells, *fits]))
    assert speed.work_seconds(cells, fits, known) == (pytest.approx(expected), set())
    assert speed.work_seconds(cells, fits, {}) == (0.0, {"fake"})
    plan = make_plan()
    assert speed.disk_bytes(plan.cells, []) == 8 * speed.disk_bytes(plan.cells[:1], [])
    large = replace(plan.cells[0], dataset=replace(plan.cells[0].dataset, counts={"test": 10_000}))
    assert speed.disk_bytes([large], []) > speed.disk_bytes(plan.cells[:1], [])
    assert speed.disk_bytes([], plan.fits.values()) > 0


def test_a_calibration_is_kept_for_the_next_plan_where_there_is_a_cache_folder(tmp_path, monkeypatch):
    spec = BACKBONES.get("tiny-clean")
    assert speed.calibrated(spec, "cpu") is None
    measured = speed.calibrate(spec, "cpu")
    assert 0 < measured.forward < 10 and measured.backward >= measured.forward
    assert speed.calibrated(spec, "cpu") == measured
    assert speed.calibrated(spec, "cuda") is None
    (tmp_path / "cache" / "calibration.json").write_text("torn")
    assert speed.calibrated(spec, "cpu") is None
    monkeypatch.setenv("APD_BENCH_CACHE", "none")
    cache_value("calibration.json", "key", {})
    assert cached_values("calibration.json") == {} and speed.calibrated(spec, "cpu") is None


def test_a_backbone_that_cannot_be_loaded_cannot_be_timed(monkeypatch):
    wrong = replace(BACKBONES.get("tiny-clean"), name="no-such-backbone")
    with pytest.raises(MissingPrerequisite, match="no-such-backbone could not be timed"):
        speed.calibrate(wrong, "cpu")
    assert speed.calibrated(wrong, "cpu") is None
