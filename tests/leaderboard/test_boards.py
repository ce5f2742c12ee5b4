"""Board files are complete, harmless, and the same bytes for the same records."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from synthetic import cell, dataset, fill, grid, method, outcomes, record

from apd_bench.cli.topics import text_of
from apd_bench.core.errors import MissingPrerequisite
from apd_bench.core.text import file_name
from apd_bench.leaderboard import columns
from apd_bench.leaderboard.boards import FORMATS, collect, write_boards
from apd_bench.leaderboard.escape import csv_text, latex_text, markdown_text
from apd_bench.leaderboard.terminal import render_terminal
from apd_bench.records.record import SCHEMA_VERSION

SHARES = {
    "zero_shot": {"clean": 0.6, "pgd": 0.1, "cw": 0.2, "autoattack": 0.05},
    "apd": {"clean": 0.6, "pgd": 0.3, "cw": 0.3, "autoattack": 0.25},
}
HOSTILE = '=HYPERLINK("http://x")|<script>alert(1)</script>\n# head `a` [l](http://x) \u202e ' + "y" * 500

HOSTILES = [
    HOSTILE, "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1", "a\nb|c\\", "x" * 5000,
    "\x1b]0;evil\x07", "\\input{/etc/passwd}\\end{tabular} % & $x$ ^^41", "![i](x) <img src=x>",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("boards") / "results", grid(SHARES))


def on_a_console(path, *, width=80):
    """What a store's tables are on a terminal."""
    console = Console(file=(stream := io.StringIO()), force_terminal=True, width=width, color_system=None)
    render_terminal(collect([path]), console)
    return stream.getvalue()


def test_markdown_says_embedded_and_not_vit(store, tmp_path):
    (page,) = write_boards([store], tmp_path, ["md"])
    text = page.read_text()
    assert page.name == "embedded.md"
    assert "not those of CLIP ViT-B" in text
    assert "Linf, eps 2/255 (0.00784), white-box" in text
    assert "seeds 1, 2, 3" in text
    assert "6/6" in text
    assert "24" not in text.split("## How")[1]


def test_boards_do_not_depend_on_locale_time_zone_hash_seed_or_threads(store, tmp_path):
    again = fill(tmp_path / "again", list(reversed(grid(SHARES))))
    first = [path.read_bytes() for path in write_boards([store], tmp_path / "a", FORMATS)]
    code = (
        "import locale, time; from pathlib import Path; from apd_bench.leaderboard.boards import write_boards; "
        "time.tzset(); locale.setlocale(locale.LC_ALL, 'C'); "
        f"write_boards([Path({str(again)!r})], Path({str(tmp_path / 'b')!r}), {list(FORMATS)!r})"
    )
    elsewhere = {"LC_ALL": "C", "LANG": "tr_TR", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "3",
                 "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **elsewhere})
    assert first == [path.read_bytes() for path in sorted((tmp_path / "b").iterdir())]
    assert len(first) == 6


def test_csv_keeps_its_declared_columns(store, tmp_path):
    write_boards([store], tmp_path, ["csv"])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "embedded.csv").read_text())))
    assert list(rows[0])[10:15] == ["rank", "last rank", "method", "reconstruction", "family"]
    assert list(rows[0])[15:19] == ["parameters", "clean", "clean low", "clean high"]
    assert {row["method"]: row["reconstruction"] for row in rows} == {"apd": "1", "zero_shot": "0"}
    assert {row["method"]: row["cells done"] for row in rows} == {"apd": "18", "zero_shot": "6"}
    long = list(csv.DictReader(io.StringIO((tmp_path / "embedded-datasets.csv").read_text())))
    assert {row["attack"] for row in long} == {"clean", "pgd", "cw", "autoattack", "worst"}
    assert len(next(row for row in long if row["method"] == "apd")["per seed"].split()) == 3


def test_hostile_names_break_no_format(tmp_path):
    items = []
    for name in HOSTILES:
        recipe = method(name, title=name, paper=name)
        for place in HOSTILES[:3]:
            spec = cell(method_spec=recipe, data=dataset(place), attack=HOSTILE)
            items.append((record(spec, suspect=(name,), environment={"apd_bench": name}), outcomes([1, 1], [1, 0])))
        items.append((record(cell(method_spec=recipe, shots=4), status="error", error={"message": name}), None))
    path = fill(tmp_path / "r", items)
    write_boards([path], tmp_path / "out", ["md", "csv", "json", "tex"])
    texts = {file.suffix: file.read_text() for file in (tmp_path / "out").iterdir() if "datasets" not in file.name}
    assert all(not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text) for text in texts.values())

    page = texts[".md"]
    assert "<" not in page
    assert "](" not in page.replace("\\](", "")
    assert "http://" not in page
    assert max(map(len, page.splitlines())) < 4000
    width = 0
    for line in page.splitlines():
        pipes = re.sub(r"\\.", "", line).count("|") if line.startswith("|") else 0
        assert pipes == width or not width or not pipes
        width = pipes
    for file in (tmp_path / "out").glob("*.csv"):
        rows = list(csv.reader(io.StringIO(file.read_text())))
        assert {len(row) for row in rows} == {len(rows[0])}
        assert not any(
            field.startswith(("=", "+", "@", "\uff1d")) or re.match(r"-\D", field) for row in rows for field in row
        )
        assert all(row[rows[0].index("method")][0] != "-" for row in rows)
    assert json.loads(texts[".json"])["tables"] and "\\input" not in texts[".tex"]
    assert texts[".tex"].count("\\end{tabular}") == texts[".tex"].count("\\begin{tabular}")
    body = [line for line in texts[".tex"].splitlines() if line.endswith("\\\\")]
    assert len({re.sub(r"\\[&%]", "", line).count("&") for line in body}) == 1

    assert "\x1b]" not in on_a_console(path)


def test_a_hostile_group_stays_in_its_folder(tmp_path):
    path = fill(tmp_path / "r", [(record(cell(data=dataset(group="../../evil"))), outcomes([1, 1], [1, 0]))])
    assert [file.name for file in write_boards([path], tmp_path / "out", ["md"])] == ["evil.md"]


def test_escapes():
    assert csv_text("=1+1") == "'=1+1"
    assert csv_text("apd") == "apd"
    assert markdown_text("a|b\nc_d <b>") == r"a\|b c_d &lt;b&gt;"
    assert latex_text("50% of a_b") == r"50\% of a\_b"
    assert file_name("../../etc/passwd") == "etc-passwd"
    assert file_name("///") == "unnamed"


def test_terminal_table_fits_80_columns_with_three_attacks(store):
    lines = on_a_console(store).splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if " apd " in line)
    assert len(row.split()) == 11
    assert "…" not in "\n".join(lines)


def test_an_empty_store_is_explained(tmp_path):
    with pytest.raises(MissingPrerequisite, match="belongs to a board"):
        write_boards([fill(tmp_path / "empty", [])], tmp_path)


def test_a_damaged_record_is_left_out_and_named(tmp_path):
    path = fill(tmp_path / "r", grid(SHARES))
    broken = next(iter(sorted((path / "cells").glob("*/*.json"))))
    broken.write_text("{")
    boards = collect([path])
    assert any(broken.stem in note for note in boards.notes)
    assert len(boards.tables[0].incomplete) == 1


def test_report_needs_no_torch(store, tmp_path):
    code = (
        "import sys; from pathlib import Path; from apd_bench.leaderboard.boards import write_boards; "
        f"write_boards([Path({str(store)!r})], Path({str(tmp_path)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("folder", sorted((Path(__file__).parent / "stored").iterdir()), ids=lambda path: path.name)
def test_a_stored_store_still_loads(folder):
    (table,) = collect([folder]).tables
    found = {row.method: round(row.estimates["worst"].value * 20) for row in table.ranked}
    assert found == {"apd": 6, "zero_shot": 3}


def test_the_schema_that_is_written_is_stored():
    kept = {path.name for path in (Path(__file__).parent / "stored").iterdir()}
    assert kept == {f"schema-{SCHEMA_VERSION}"}


def test_a_new_column_is_one_entry_and_stands_in_every_format_and_in_the_legend(store, tmp_path, monkeypatch):
    new = columns.Column(key="done share", value=lambda _, row: row.done / 64, help="cells done in 64ths.")
    monkeypatch.setattr(columns, "_AFTER", (*columns._AFTER, new))
    texts = {path.name: path.read_text() for path in write_boards([store], tmp_path, FORMATS)}
    page = re.sub(r"<(script|style)\b.*?</\1>", "", texts["embedded.html"], flags=re.S)
    screen = on_a_console(store, width=120) + text_of("columns", 120).replace("done share\n", "done share: ")
    for text in (texts["embedded.md"], texts["embedded.tex"], page, screen):
        assert "0.281" in text and "0.094" in text  # 18 / 64 and 6 / 64, by method
        assert "done share: cells done in 64ths." in " ".join(text.split())
    lines = list(csv.DictReader(io.StringIO(texts["embedded.csv"])))
    assert {line["method"]: line["done share"] for line in lines} == {"apd": "0.281", "zero_shot": "0.094"}
    rows = json.loads(texts["embedded.json"])["tables"][0]["rows"]
    assert {row["method"]: row["done_share"] for row in rows} == {"apd": 0.28125, "zero_shot": 0.09375}


@pytest.mark.parametrize("form", sorted(columns.FORMATS - {"csv", "json"}))
def test_the_legend_explains_every_column_that_its_title_does_not(form):
    found = columns.table_columns(("pgd",), form)
    assert {column.heading for column in found if not column.help} <= {"method", "pgd"}
