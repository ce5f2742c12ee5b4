"""Plans of fake cells, and the folder of the fake workbench on the path of workers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)  # workers inherit the path, and find `fakes` on it


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What the fake workbench did, in order, as "kind id" lines, across processes and runs."""
    path = tmp_path / "work.log"
    monkeypatch.setenv("FAKE_LOG", str(path))
    return lambda: path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import os

    for name in list(os.environ):
        if name.startswith("APD_BENCH_") and name != "APD_BENCH_CACHE":
            monkeypatch.delenv(name)
    yield
