"""The wheel holds what a fresh machine needs, and nothing but `apd_bench` at its top level."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    assert wheel.stat().st_size < 25e6
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_top_level_is_the_package_alone(names):
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"apd_bench"}


@pytest.mark.parametrize(
    "folder",
    [
        "apd_bench/suites",
        "apd_bench/leaderboard/web",
        "baselines",
        "apd_bench/embedded/models",
        "apd_bench/embedded/datasets",
    ],
)
def test_package_data_is_inside(names, folder):
    source = ROOT / folder
    inside = "apd_bench/baselines" if folder == "baselines" else folder
    wanted = {
        f"{inside}/{path.relative_to(source).as_posix()}"
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "baselines/embedded/" not in path.as_posix()
    }
    assert wanted, f"{folder} is empty"
    assert wanted <= names


def test_licences_and_typing_marker_are_inside_and_build_scripts_are_not(names):
    assert {"apd_bench/py.typed", "apd_bench/embedded/NOTICE"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "baselines/embedded" in name]
