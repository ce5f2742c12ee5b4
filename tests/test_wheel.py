"""What is released: sdist and wheel hold what a fresh machine needs, install and answer; metadata and pins agree."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from apd_bench.core.toml import tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def names(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < 25e6
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_installs_into_an_empty_folder_and_answers_from_there(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True)
    script = "import apd_bench, apd_bench.cli as cli; print(apd_bench.__file__); cli.main(['--help'])"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(target)) and "examples:" in done.stdout
    listed = [sys.executable, "-m", "apd_bench", "show", "apd"]  # recipes are read from inside
    done = subprocess.run(listed, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "learner" in done.stdout


def test_the_sdist_has_the_tests_and_no_records(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    folders = {name.split("/")[1] for name in names if "/" in name}
    assert {"apd_bench", "baselines", "tests", "CITATION.cff", "README.md"} <= folders
    assert "leaderboards" not in folders and not [name for name in names if re.search("results/.*/cells/", name)]


def test_version_date_and_addresses_agree():
    citation = dict(re.findall(r"^([a-z-]+): \"?([^\"\n]+)", (ROOT / "CITATION.cff").read_text("utf-8"), re.M))
    assert citation["version"] == PROJECT["version"] and citation["repository-code"] == PROJECT["urls"]["Homepage"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", citation["date-released"]) and PROJECT["authors"]


def test_the_pinned_packages_are_those_of_the_committed_records():
    lines = (ROOT / ".ci/constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    measured = [
        json.loads(path.read_bytes())["environment"]["packages"]
        for path in sorted((ROOT / "results/embedded/cells").glob("*/*.json"))[:50]
    ]
    wanted = [{name: value for name, value in found.items() if name != "torchattacks"} for found in measured]
    assert pinned in wanted, f"write .ci/constraints.txt anew: {wanted[0]}"


def test_the_package_is_alone_at_the_top_with_licences_and_without_build_scripts(names):
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"apd_bench"}
    assert {"apd_bench/py.typed", "apd_bench/embedded/NOTICE"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "baselines/embedded" in name]


@pytest.mark.parametrize("folder", [
    "apd_bench/suites", "apd_bench/leaderboard/web", "baselines", "apd_bench/embedded/models",
    "apd_bench/embedded/datasets",
])  # fmt: skip
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
