"""The web page: harmless as text, and in a real browser sortable, filterable, linkable and silent."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from synthetic import cell, dataset, fill, grid, method, outcomes, record

from apd_bench.cli import arguments, run
from apd_bench.leaderboard.boards import write_boards
from apd_bench.leaderboard.command import crossings, words
from apd_bench.records.store import Store
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import resolve
from apd_bench.suites import load_suite

SHARES = {
    "zero_shot": {"clean": 0.7, "pgd": 0.1, "autoattack": 0.05},
    "advtp": {"clean": 0.5, "pgd": 0.2, "autoattack": 0.15},
    "apd": {"clean": 0.6, "pgd": 0.4, "autoattack": 0.35},
}
HOSTILE = "\"><img src=x onerror=alert(1)></script><script>alert(2)</script>' -->"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    items = grid(SHARES, seeds=(1, 2)) + grid(SHARES, seeds=(1, 2), eps=4 / 255)
    (written,) = write_boards([fill(folder / "r", items)], folder, ["html"])
    return written


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    recipe = method(HOSTILE, title=HOSTILE, paper=HOSTILE, sources={HOSTILE: HOSTILE}, training={"x": HOSTILE})
    spec = cell(method_spec=recipe, data=dataset(HOSTILE), attack=HOSTILE)
    items = [(record(spec, suspect=(HOSTILE,)), outcomes([1, 1], [1, 0]))]
    (written,) = write_boards([fill(folder / "r", items)], folder, ["html"])
    return written


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def shows(browser: Browser, methods: list[str], board: int = 0) -> bool:
    """Whether the rows become these: keys and clicks reach the page at once, but not always within the same task."""
    rows = f"[...document.querySelectorAll('#board-{board} tbody th[scope=row] a')].map(a => a.textContent).join()"
    return browser.settles(f"{rows} === '{','.join(methods)}'")


def first_methods(browser: Browser, board: int = 0) -> list[str]:
    return list(
        browser.run(f"[...document.querySelectorAll('#board-{board} tbody th[scope=row] a')].map(a => a.textContent)")
    )


def test_page_is_self_contained(page: Path) -> None:
    text = page.read_text()
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S)
    assert not re.search(r"(src|href)=['\"](?!#|data:)", markup)
    assert "default-src 'none'" in markup
    assert "not those of CLIP ViT-B" in markup
    assert "apd-bench run --suite blank --backbone tiny-clean --methods apd --datasets food places" in markup


def test_hostile_names_stay_text(hostile_page: Path) -> None:
    text = hostile_page.read_text()
    assert "<img src=x" not in text
    assert text.count("</script>") == 5
    assert "<script>alert" not in text


def test_sort_filter_and_columns(page: Path, browser: Browser) -> None:
    browser.open(page.as_uri())
    assert shows(browser, ["apd", "advtp", "zero_shot"])
    browser.run("document.querySelectorAll('#board-0 thead th')[5].click()")  # clean, ascending
    assert shows(browser, ["advtp", "apd", "zero_shot"])
    browser.run("document.querySelectorAll('#board-0 thead th')[5].querySelector('[tabindex]').focus()")
    browser.press("Enter")
    assert shows(browser, ["zero_shot", "apd", "advtp"])
    browser.run("document.querySelector('#board-0 input[type=search]').focus()")
    for sign in "advtp":
        browser.press(sign)
    assert shows(browser, ["advtp"])
    browser.run("document.querySelector('#board-0 input[data-column=\"4\"]').click()")
    head = "[...document.querySelectorAll('#board-0 thead th')].map(th => th.textContent.trim())"
    assert "learned" not in browser.run(head)
    assert browser.run("location.hash") == "#board=0&q=advtp&sort=5%2Cdesc&hide=4"
    assert browser.problems() == []


def test_a_link_opens_the_same_view(page: Path, browser: Browser) -> None:
    browser.open(f"{page.as_uri()}#board=1&q=clean&sort=5,desc&hide=4,6")
    assert browser.run("document.getElementById('board').value") == "1"
    assert browser.run("document.getElementById('board-0').hidden") is True
    assert shows(browser, ["apd", "advtp"], 1)
    assert browser.run("document.querySelector('#board-1 input[data-column=\"6\"]').checked") is False
    browser.open(f"{page.as_uri()}#method-apd")
    assert browser.run("document.querySelector(location.hash).getBoundingClientRect().top < innerHeight") is True
    assert browser.problems() == []


def test_no_request_leaves_the_page_and_charts_are_drawn(page: Path, browser: Browser) -> None:
    browser.open(page.as_uri())
    drawn = "['scatter', 'eps'].every(id => Chart.getChart(id).data.datasets.length > 2)"
    assert browser.run(drawn) is True
    assert browser.run("Chart.getChart('eps').data.datasets[0].data.length") == 3
    assert {url.split(":")[0] for url in browser.requests()} <= {"file", "data"}
    assert browser.run("fetch('https://example.com').then(() => 'sent', () => 'refused')") == "refused"


def test_phone_dark_print_and_no_scripts(page: Path, browser: Browser) -> None:
    browser.size(360, 700)
    browser.open(page.as_uri())
    assert browser.settles("document.documentElement.scrollWidth <= innerWidth")
    head = "[...document.querySelectorAll('#board-0 thead th')].map(th => th.textContent.trim()).join()"
    assert browser.run(head) == "rank,method,clean,worst,95 %"
    browser.run("location.hash = 'board=0&hide='")
    assert browser.settles(f"{head}.includes('learned')")
    browser.size(1200, 900)
    before = browser.run("getComputedStyle(document.body).backgroundColor")
    browser.run("document.getElementById('theme').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") != before
    assert len(browser.send("Page.printToPDF")["data"]) > 10_000
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page.as_uri())
        document = browser.send("DOM.getDocument", depth=0)["root"]["nodeId"]
        assert (
            len(browser.send("DOM.querySelectorAll", nodeId=document, selector=".board:not([hidden])")["nodeIds"]) == 2
        )
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_bands_stay_while_they_can_be_read(tmp_path: Path, browser: Browser) -> None:
    many = {f"m{place}": {"clean": 0.6, "pgd": 0.1 * place} for place in range(1, 6)}
    (path,) = write_boards([fill(tmp_path / "r", grid(many, seeds=(1,)))], tmp_path, ["html"])
    browser.open(path.as_uri())
    filled = "Chart.getChart('eps').data.datasets.filter(set => set.fill === '-1').length"
    assert browser.run(filled) == 0
    lines = "Chart.getChart('eps').data.datasets.filter(set => !set.band && set.label !== ' low').map(set => set.label)"
    assert browser.run(lines) == first_methods(browser)  # best first, as in the table
    switch = (
        "(c => { c.options.plugins.legend.onClick(null, {datasetIndex: 0}, {chart: c}); return c.isDatasetVisible(2) })"
    )
    assert browser.run(f"{switch}(Chart.getChart('eps'))") is False
    assert browser.run(filled) == 5
    assert browser.problems() == []


def test_the_commands_of_the_page_plan_exactly_the_stored_cells() -> None:
    """All cells of the committed store, from the words that a reader copies to the ids that `run` would measure."""
    cells = [record.cell for record in Store(Path(__file__).parents[2] / "results" / "embedded").records()]
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    planned = []
    for crossing in crossings(cells):
        options = arguments.options_of(parser.parse_args(words(crossing)[2:]))
        planned += plan(resolve(load_suite(options.suite), options)).cells
    assert sorted(cell.id for cell in planned) == sorted(cell.id for cell in cells)


def test_the_command_and_the_protocol_name_a_training_budget_that_is_not_the_tested_one(tmp_path: Path) -> None:
    items = grid({"apd": SHARES["apd"]}, seeds=(1,), eps=4 / 255, fit={"train_eps": 2 / 255})
    page, text = write_boards([fill(tmp_path / "r", items)], tmp_path, ["html", "md"])
    assert re.search("--eps 4/255 --seeds 1 --shots 16 --limit all .*--set train_eps=2/255<", page.read_text())
    assert "adversarial training at eps 2/255" in text.read_text()


def test_base_and_new_classes_stand_side_by_side(tmp_path: Path) -> None:
    items = []
    for classes in ("base", "new"):
        halves = {"task": "base_to_new", "fit": {"classes": "base"}, "classes": classes}
        items += grid({"apd": SHARES["apd"], "advtp": SHARES["advtp"]}, seeds=(1,), **halves)
    page, text = write_boards([fill(tmp_path / "r", items)], tmp_path, ["html", "md"])
    assert "harmonic means" in page.read_text()
    head = "| method | base clean | new clean | H clean | base worst | new worst | H worst |"
    assert head in text.read_text()


def test_hostile_names_run_nothing_in_the_browser(hostile_page: Path, browser: Browser) -> None:
    browser.open(hostile_page.as_uri())
    assert browser.run("document.images.length") == 0
    assert not any(event.get("method") == "Page.javascriptDialogOpening" for event in browser.events)
    assert browser.problems() == []


def test_tables_have_captions_scopes_and_the_controls_labels(page: Path, browser: Browser) -> None:
    browser.open(page.as_uri())
    assert browser.run("[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent)") is True
    assert browser.run("[...document.querySelectorAll('thead th')].every(th => th.scope === 'col')") is True
    assert (
        browser.run("[...document.querySelectorAll('input, select')].every(i => i.labels && i.labels.length)") is True
    )
