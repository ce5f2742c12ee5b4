"""Figures are made for every kind and format, repeat exactly, and explain what is missing."""

import pytest
from synthetic import grid, tables_of

from apd_bench.cli import main
from apd_bench.core.errors import UsageError
from apd_bench.leaderboard.plots import KINDS, draw

pytest.importorskip("matplotlib")

SHARES = {"zero_shot": {"clean": 0.7, "pgd": 0.1}, "apd": {"clean": 0.6, "pgd": 0.4}}


@pytest.fixture(scope="module")
def made():
    items = grid(SHARES, seeds=(1, 2)) + grid(SHARES, seeds=(1, 2), eps=4 / 255)
    return tables_of(items)


@pytest.mark.parametrize(("kind", "files"), [("board", 2), ("eps", 1), ("pareto", 2), ("heatmap", 2), ("seeds", 2)])
def test_every_figure_repeats_exactly(kind, files, made, tmp_path):
    first = draw(kind, made, tmp_path / "a", "svg")
    second = draw(kind, made, tmp_path / "b", "svg")
    assert len(first) == files
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert "not ViT-B" in first[0].read_text()


@pytest.mark.parametrize(("form", "start"), [("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_formats(form, start, made, tmp_path):
    assert draw("pareto", made, tmp_path, form)[0].read_bytes().startswith(start)


def test_unknown_kinds_and_empty_tables_are_explained(made, tmp_path):
    with pytest.raises(UsageError, match="no figure 'pie'"):
        draw("pie", made, tmp_path)
    with pytest.raises(UsageError, match="no figure format 'gif'"):
        draw("eps", made, tmp_path, "gif")
    for kind in KINDS:
        with pytest.raises(UsageError, match="complete row"):
            draw(kind, [], tmp_path)


def test_verb_says_when_there_are_no_records(tmp_path, capsys):
    assert main(["plot", "eps", str(tmp_path / "none")]) == 2
    assert "no records" in capsys.readouterr().err
