"""Facts about the repository as a whole: agreed rooms, no stray files, versions that agree."""

import re
import subprocess
from pathlib import Path

import pytest

from apd_bench import __version__

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "pyproject.toml", "apd_bench", "baselines", "leaderboards", "tests", "results",
    "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md",
}  # fmt: skip


@pytest.fixture(scope="module")
def tracked():
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return done.stdout.split("\n")[:-1]


def test_the_top_level_holds_the_agreed_rooms_and_no_junk_is_tracked(tracked):
    assert {name.split("/")[0] for name in tracked if not name.startswith(".")} <= ROOMS
    junk = [name for name in tracked if re.search(r"\.pyc$|\.pkl$|\.idea|__pycache__|\.DS_Store|\.pth(\.tar)?$", name)]
    assert not junk


def test_changelog_names_the_version():
    version = __version__.split("+")[0]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_what_is_printed_goes_through_one_place():
    written = {
        str(path.relative_to(ROOT / "apd_bench"))
        for path in (ROOT / "apd_bench").rglob("*.py")
        if re.search(r"sys\.std(out|err)\.write|[^.\w]print\(", path.read_text())
    }
    assert written == {"cli/console.py", "cli/heavy_imports.py", "runner/calibration.py"}  # to itself
