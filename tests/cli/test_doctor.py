"""The doctor on machines that are made up: fake torch and torchvision modules, folders that cannot be written."""

import json
import os
import subprocess
import sys

import pytest

from apd_bench.cli import doctor, main
from apd_bench.cli.doctor import NOTE, OK, PROBLEM, examine, judge_probe, run_probe

TORCH = """
__version__ = "2.9.0+cpu"
def zeros(*shape): return shape
def get_num_threads(): return 3
class cuda:
    is_available = staticmethod(lambda: False)
class version: cuda = None
class backends: pass
"""
TORCHVISION = """
__version__ = "0.24.0+cpu"
class ops:
    nms = staticmethod(lambda *_: None)
"""
OPEN_CLIP = "__version__ = '3.0'\ndef list_models(): return ['ViT-B-32']\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder of fake packages that the probe's process imports instead of the real ones."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, text in (("torch", TORCH), ("torchvision", TORCHVISION), ("open_clip", OPEN_CLIP)):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("APD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    return folder


def found(seconds=60):
    return {check.name: check for check in judge_probe(run_probe(seconds))}


def test_a_healthy_pair_is_told_without_importing_torch(machine):
    checks = found()
    assert [checks[name].state for name in ("torch", "torchvision", "open_clip")] == [OK, OK, OK]
    assert checks["torchvision"].detail == "0.24.0+cpu works beside torch 2.9.0+cpu"
    assert checks["cuda"].state == NOTE
    code = "import sys; from apd_bench.cli.doctor import examine; examine(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pair_that_does_not_fit_is_named_with_the_cure(machine):
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (machine / "torchvision.py").write_text(broken)
    (machine / "open_clip.py").write_text("import torchvision")
    checks = found()
    assert checks["torch"].state == OK
    for name in ("torchvision", "open_clip"):
        assert checks[name].state == PROBLEM
        assert "nms does not exist" in checks[name].detail
        assert "torch torchvision" in checks[name].fix


@pytest.mark.parametrize(("package", "text", "state", "said"), [
    ("torchvision", TORCHVISION.replace("+cpu", "+cu130"), PROBLEM, "different devices"),
    ("torchvision", "import os; os.abort()", PROBLEM, "ended the process"),
    ("torch", "raise ModuleNotFoundError(\"No module named 'torch'\")", PROBLEM, "pip install torch"),
    ("torch", f"{TORCH}\nimport importlib.util\nassert importlib.util.find_spec('probe') is None\n", OK, "3 threads"),
])  # fmt: skip
def test_a_package_that_is_broken_is_named(machine, package, text, state, said):
    (machine / f"{package}.py").write_text(text)
    checks = found()
    assert checks[package].state == state and said in checks[package].detail + checks[package].fix
    if "abort" in text:  # and takes nothing but itself along
        assert checks["torch"].state == OK and checks["open_clip"].state == PROBLEM


def test_a_gpu_that_torch_does_not_see_and_an_import_that_hangs(machine, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert found()["cuda"].state == PROBLEM
    assert "built without CUDA" in found()["cuda"].detail
    (machine / "torch.py").write_text("import time; time.sleep(100)")
    checks = found(seconds=1)
    assert list(checks) == ["torch"]
    assert "did not end within 1 seconds" in checks["torch"].detail


def test_exit_codes(machine, tmp_path, capsys):
    checks = {(check.area, check.name): check for check in examine()}
    bad = [key for key, check in checks.items() if check.state == PROBLEM]
    assert main(["doctor", "--json"]) == (2 if bad else 0)
    assert {(c["area"], c["name"]) for c in json.loads(capsys.readouterr().out)} == set(checks)
    (machine / "torchvision.py").write_text("raise ImportError('no')")
    assert main(["doctor"]) == 2
    said = capsys.readouterr()
    assert "PROBLEM" in said.out and doctor.PAIR_FIX in said.out


def test_data_roots(tmp_path, monkeypatch):
    (tmp_path / "data/dtd/images").mkdir(parents=True)
    monkeypatch.setenv("APD_BENCH_DATA", f"{tmp_path / 'data'}{os.pathsep}{tmp_path / 'nowhere'}")
    first, second = doctor._data()
    assert (first.state, first.detail) == (OK, "1 of 18 known sets: dtd")
    assert (second.state, "APD_BENCH_DATA" in second.fix) == (PROBLEM, True)


def test_without_data_nothing_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setattr("apd_bench.data.places.user_data_path", lambda *_, **__: tmp_path / "share")
    (only,) = doctor._data()
    assert only.state == NOTE


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("APD_BENCH_CACHE", str(tmp_path / "file"))
    (check,) = doctor._cache()
    assert (check.state, "APD_BENCH_CACHE" in check.fix) == (PROBLEM, True)
    monkeypatch.setenv("APD_BENCH_CACHE", "none")
    (check,) = doctor._cache()
    assert check.state == NOTE
    monkeypatch.setenv("APD_BENCH_CACHE", str(tmp_path / "new"))
    (check,) = doctor._cache()
    assert check.state == OK and list((tmp_path / "new").iterdir()) == []


def test_an_old_package_is_named(monkeypatch):
    wanted = ["numpy>=1.26", "nothing-like-this>=1", "x>=1; extra == 'dev'"]
    monkeypatch.setattr(doctor, "requires", lambda name: wanted)
    monkeypatch.setattr(doctor, "installed", {"numpy": "1.9.5"}.get)
    _, old, absent = doctor._packages()
    assert (old.name, old.state, old.detail) == ("numpy", PROBLEM, "1.9.5, needed is 1.26")
    assert (absent.name, absent.state) == ("nothing-like-this", PROBLEM)
