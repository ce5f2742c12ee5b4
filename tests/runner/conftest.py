"""What the fake workbench does."""

import pytest


@pytest.fixture
def log(tmp_path, monkeypatch):
    """What the fake workbench did, in order, as "kind id" lines, across processes and runs."""
    path = tmp_path / "work.log"
    monkeypatch.setenv("FAKE_LOG", str(path))
    return lambda: path.read_text().split("\n")[:-1] if path.exists() else []
