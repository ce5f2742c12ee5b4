from __future__ import annotations

from pathlib import Path

import pytest

from apd_bench.cli import main
from apd_bench.data import stores
from apd_bench.data.timing import folder_split, photographs, time_epochs


def test_the_first_epoch_decodes_and_the_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs(tmp_path / "images", 6, size=(48, 36))
    decoded: list[str] = []
    real = stores.decode
    monkeypatch.setattr(stores, "decode", lambda *words: (decoded.append(words[3]), real(*words))[1])

    def opened() -> object:
        return folder_split(tmp_path / "images", 16, tmp_path / "cache")

    epochs = time_epochs(opened(), limit=4, batch_size=3, reopen=opened)  # type: ignore[arg-type]
    assert [(epoch.name, epoch.images) for epoch in epochs] == [("first", 4), ("second", 4), ("new process", 4)]
    assert len(decoded) == 4


def test_the_verb_compares_decoding_with_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "data", "--limit", "4", "--image-size", "16"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("4 JPEG files", "first epoch", "same pixels yes"))


def test_an_embedded_set_can_be_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "data", "animals", "--limit", "5", "--image-size", "40"]) == 0
    assert "5" in capsys.readouterr().out
