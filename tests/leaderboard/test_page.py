"""The page as text, and in a real browser: sortable, filterable, comparable, linkable, printable and silent."""

from __future__ import annotations

import argparse
import base64
import html
import json
import re
import shlex
from pathlib import Path

import pandas
import pytest
from browser import CHROMIUM, Browser
from synthetic import cell, dataset, fill, grid, method, outcomes, record

from apd_bench.cli import arguments, parsed, run
from apd_bench.core.errors import CorruptFile
from apd_bench.leaderboard.boards import FORMATS, collect, write_boards
from apd_bench.leaderboard.command import crossings, words
from apd_bench.leaderboard.comparison import worst_differences
from apd_bench.leaderboard.curves import Point
from apd_bench.leaderboard.looks import look, looks
from apd_bench.leaderboard.tries import load_tuning
from apd_bench.leaderboard.web.charts import curves
from apd_bench.leaderboard.web.methods import card_html
from apd_bench.leaderboard.web.page import pairs
from apd_bench.records.store import Store
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import resolve
from apd_bench.suites import load_suite

SHARES = {
    "zero_shot": {"clean": 0.7, "pgd": 0.2, "autoattack": 0.15},
    "advtp": {"clean": 0.5, "pgd": 0.2, "autoattack": 0.1},
    "apd": {"clean": 0.6, "pgd": 0.5, "autoattack": 0.45},
}
HOSTILE = "\"><img src=x onerror=alert(1)></script><script>alert(2)</script>' -->"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def example(name, sample, told, group="embedded"):
    """A picture of the image `sample` of class cat, that `name` takes for `told` after the attack."""
    made = {"method": name, "dataset": "food", "group": group, "backbone": "tiny-clean", "attack": "pgd at 2/255"}
    made |= {"sample": sample, "label": "cat", "clean_prediction": "cat", "adversarial_prediction": told}
    return made | dict.fromkeys(("clean", "change", "attacked"), PIXEL)


def tuned(store, *methods):
    """Tables of tries as `apd-bench tune` writes them."""
    tables = {"curve": [], "gains": [], "trials": []}
    for name in methods:
        best = {"method": name, "high": 34, "rank": 1}
        tables["curve"] += [{"k": k, "expected": 30 + k, "low": 20 + k, **best} for k in (1, 2, 3)]
        found = json.dumps({"training.lr": 0.006})
        tables["gains"].append({"method": name, "default": 31.0, "tuned": 33.5, "configuration": found})
        trial = {"backbone": "tiny-clean", "attack": "worst.fast", "eps": "2/255", "split": "val", "dataset": "food"}
        tables["trials"].append(trial)
    (store / "tuning").mkdir()
    for name, rows in tables.items():
        pandas.DataFrame(rows).to_csv(store / "tuning" / f"{name}.csv", index=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "r"
    fill(folder, grid(SHARES, seeds=(1, 2)) + grid(SHARES, seeds=(1, 2), eps=4 / 255))
    tuned(folder, "apd")
    (folder / "examples").mkdir()
    for name, told in (("apd", "cat"), ("zero_shot", "dog")):
        (folder / "examples" / f"{name}.json").write_text(json.dumps([example(name, "s00001", told)]))
    return folder


@pytest.fixture(scope="module")
def page(store, tmp_path_factory):
    (written,) = write_boards([store], tmp_path_factory.mktemp("page"), ["html"])
    return written


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    recipe = method(HOSTILE, title=HOSTILE, paper=HOSTILE, sources={HOSTILE: HOSTILE}, training={"x": HOSTILE})
    spec = cell(method_spec=recipe, data=dataset(HOSTILE), attack=HOSTILE)
    items = [(record(spec, suspect=(HOSTILE,)), outcomes([1, 1], [1, 0]))]
    (written,) = write_boards([fill(folder / "r", items)], folder, ["html"])
    return written


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def opened(page, browser):
    """The page at 1280 pixels; nothing may have been said to the console when the test is over."""
    browser.size(1280, 800)
    browser.open(page.as_uri())
    yield browser
    assert browser.problems() == []


def each(browser, selector, value):
    """What the script `value` says of each `x` of the elements that are seen, from top to bottom."""
    seen = f"[...document.querySelectorAll({json.dumps(selector)})].filter(x => x.checkVisibility())"
    return list(browser.run(f"{seen}.map(x => {value})"))


def names(browser, board=0):
    return each(browser, f"#board-{board} tbody tr[data-method]", "x.dataset.method")


def click(browser, selector):
    browser.run(
        f"document.querySelector({json.dumps(selector)}).dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
    )


def without_code(path):
    return re.sub(r"<(script|style)\b.*?</\1>", "", path.read_text(), flags=re.S)


def test_page_asks_the_question_and_fetches_nothing(page):
    markup = without_code(page)
    assert "<h1>Which prompt tuning hardens CLIP?</h1>" in markup
    assert "3 methods · one protocol · every sample attacked by pgd and autoattack" in markup
    elsewhere = re.findall(r"<(\w+)[^>]*\s(?:src|href)=['\"](?!#|data:)([^'\"]*)", markup)
    assert {tag for tag, _ in elsewhere} == {"a"}
    assert {address for _, address in elsewhere} == {
        f"https://arxiv.org/abs/{number}" for number in ("2103.00020", "2403.01849", "2411.15244")
    }
    assert "default-src 'none'" in markup
    assert "not those of CLIP ViT-B" in markup
    assert markup.count('<span class="tag"') == 2  # apd is a reconstruction, on both boards
    assert "ICASSP 2026</a>" in markup


def test_findings_are_what_the_records_say(page, store):
    table = collect([store]).tables[0]
    best, zero = table.ranked[0], next(row for row in table.ranked if row.method == "zero_shot")
    assert best.gain is not None and best.method == "apd"
    found = re.findall(r"<p><b>(.*?)</b> (.*?)</p>", without_code(page))
    worst, gain = (100 * best.estimates["worst"].value, 100 * best.gain.value)
    assert found[0][0] == f"{worst:.1f} % vs {100 * zero.estimates['worst'].value:.1f} %"
    assert (
        f"apd (our reconstruction), against zero_shot in the worst case at 2/255: paired difference +{gain:.1f} ("
        in found[0][1]
    )
    drops = [100 * (row.estimates["pgd"].value - row.estimates["worst"].value) for row in table.ranked]
    assert found[1][0] == f"−{min(drops):.1f} to −{max(drops):.1f} points"
    assert found[2][1] == "is left of any method at 4/255, 2 times this budget"
    assert len(found) == 6 and found[5][0].endswith("of 2")  # the larger budget says how many beat zero-shot


def test_every_command_of_the_page_is_one(page):
    commands = [
        line
        for block in re.findall(r"<code>(.*?)</code>", without_code(page), flags=re.S)
        for line in html.unescape(block).splitlines()
        if line.startswith("apd-bench")
    ]
    assert len(commands) > 6
    for line in commands:
        _, verb, *rest = shlex.split(line)
        parsed(verb, rest)


def test_the_files_inside_the_page_are_the_board_files(page, store):
    boards = collect([store])
    expected = {name: FORMATS[name](boards, "embedded")[f".{name}"] for name in ("csv", "json", "tex")}
    found = re.findall(r'download="embedded\.(\w+)" href="data:[\w/-]+;base64,([^"]+)"', without_code(page))
    assert {name: base64.b64decode(text).decode() for name, text in found} == expected


def test_a_method_has_recipe_sources_tries_card_and_records(page):
    article = re.search(r'<article id="method-apd".*?</article>', without_code(page), flags=re.S)
    assert article is not None
    text = article[0]
    assert "apd-bench run --suite blank --backbone tiny-clean --methods apd --datasets food places" in text
    assert "Tuning: 31.0 as it stands, 33.5 the best of 3 tries" in text
    assert "<code>training.lr=0.006</code>" in text and "worst.fast at 2/255, val images of food" in text
    assert 'class="chart tuning-apd"' in text and 'class="band"' in text
    assert "<h4>APD: adversarial prompt distillation (<code>apd</code>)</h4>" in text
    assert text.count("<td>success</td>") == 16
    assert "Tuning" not in without_code(page).split('id="method-advtp"')[1].split("</article>")[0]


def test_a_chart_holds_its_bands():
    points = [Point(1, 0.2, 0.1, 0.33), Point(2, 0.29, 0.2, 0.33)]
    chart = curves("tuning", "", ("k", "score"), {"apd": points}, {"apd": look(0)})
    assert chart is not None
    heights = [float(part.split(",")[1]) for part in re.split("[ML]", chart.series[0].band.rstrip("z"))[1:]]
    _, top, _, bottom = chart.box
    assert top <= min(heights) and max(heights) <= bottom and len({*heights}) == 3


def test_damaged_tables_of_tries_are_named(tmp_path):
    tuned(tmp_path, "apd")
    assert load_tuning([tmp_path])["apd"].tries == 3
    (tmp_path / "tuning" / "gains.csv").write_text("method,default\napd,1\n")
    with pytest.raises(CorruptFile, match="tables of tries"):
        load_tuning([tmp_path])


def test_cards_are_safe():
    made = card_html(
        "# One\n\n<b>raw</b> ![p](https://a/b.png) [x](javascript:alert(1)) [y](../z.md) [z](https://a.b)\n\n|a|\n|-|\n|1|\n"
    )
    assert "<h4>One</h4>" in made and "<td>1</td>" in made and "&lt;b&gt;" in made
    assert "<img" not in made and re.findall('href="([^"]*)"', made) == ["https://a.b", "https://a/b.png"][::-1]


def test_examples_stand_in_pairs(page):
    items = [example("apd", "1", "cat"), example("zero_shot", "1", "dog"), example("apd", "2", "dog")]
    assert [[item["method"] for item in pair] for pair in pairs(items)] == [["zero_shot", "apd"]]
    assert [len(pair) for pair in pairs(items[1:])] == [1, 1]
    shown = re.search(r'<section id="examples".*?</section>', without_code(page), flags=re.S)
    assert shown is not None
    assert re.findall(r"<b>(\w+)</b><br><span class=\"verdict (\w+)\"", shown[0]) == [
        ("zero_shot", "broken"),
        ("apd", "stood"),
    ]


def test_hostile_names_stay_text(hostile_page, browser):
    text = hostile_page.read_text()
    assert "<img src=x" not in text
    assert text.count("</script>") == 2
    assert "<script>alert" not in text
    browser.open(hostile_page.as_uri())
    assert browser.run("document.images.length") == 0
    assert not any(event.get("method") == "Page.javascriptDialogOpening" for event in browser.events)
    assert browser.problems() == []


def test_every_head_says_what_it_is_and_tables_have_captions_scopes_and_controls_labels(opened):
    opened.run("document.getElementById('more').click()")
    heads = "[...document.querySelectorAll('#board-0 th[data-key]')]"
    shown = "(th => { th.querySelector('button').focus(); return document.getElementById('tip').textContent.length })"
    assert opened.run(f"{heads}.every(th => th.checkVisibility())") is True
    assert min(opened.run(f"{heads}.map({shown})")) > 10
    opened.run("document.querySelectorAll('details').forEach(part => { part.open = true })")
    assert all(each(opened, "table:not(.card table)", "Boolean(x.caption && x.caption.textContent)"))
    assert {*each(opened, "thead th:not(.card th)", "x.scope")} == {"col"}
    assert all(each(opened, "input", "x.labels.length"))


def test_filters_buttons_and_the_link(opened, page):
    click(opened, "button[data-kind=hand-made]")
    assert names(opened) == ["zero_shot"]
    click(opened, "button[data-kind='']")
    opened.run("document.getElementById('find').focus()")
    for sign in "adv":
        opened.press(sign)
    assert names(opened) == ["advtp"]
    click(opened, "button[data-facet=budget][data-value='4/255']")
    assert (names(opened, 0), names(opened, 1)) == ([], ["advtp"])
    link = opened.run("location.href")
    assert opened.problems() == []
    opened.open(link)
    assert names(opened, 1) == ["advtp"]
    opened.open(f"{page.as_uri()}#method-apd")
    assert opened.run("document.querySelector(location.hash).getBoundingClientRect().top < innerHeight") is True


def test_two_methods_are_compared_as_the_terminal_does(opened, store):
    table = collect([store]).tables[0]
    gaps, order = worst_differences(table), [row.method for row in table.ranked]
    for place, row in enumerate(table.ranked):
        if row.gain is not None:  # the interval in the row and that of the pair are one
            low, high = gaps[place, order.index("zero_shot")]
            assert (row.gain.low, row.gain.high) == pytest.approx((low, high))
    click(opened, "#board-0 tr[data-method=apd] .pick input")
    click(opened, "#charts .series[data-method=zero_shot]")
    head, *lines = each(opened, "#compare table:first-of-type tr", "[...x.cells].map(c => c.textContent)")
    assert head == ["column", "apd", "zero_shot", "difference", "95 %"]
    low, high = gaps[order.index("apd"), order.index("zero_shot")]
    values = [100 * row.estimates["worst"].value for row in table.ranked if row.method != "advtp"]
    expected = [f"{value:.1f}" for value in values] + [f"{values[0] - values[1]:+.1f}"]
    assert lines[-1] == ["worst", *expected, f"{100 * low:+.1f} to {100 * high:+.1f}"]
    assert "apd-bench compare apd zero_shot" in opened.run("document.getElementById('compare').textContent")
    opacity = each(opened, "#charts .eps .series", "[x.dataset.method, Number(getComputedStyle(x).opacity)]")
    assert {name for name, value in opacity if value < 1} == {"advtp"}


def test_charts_have_the_colours_of_plot_and_no_labels_that_overlap(tmp_path, browser):
    crowd = {f"method-{place:02}": {"clean": 0.6, "pgd": 0.1 + 0.01 * (place % 3)} for place in range(18)}
    path = fill(tmp_path / "r", grid(crowd, seeds=(1,)) + grid(crowd, seeds=(1,), eps=4 / 255))
    (written,) = write_boards([path], tmp_path, ["html"])
    browser.size(1280, 800)
    browser.open(written.as_uri())
    crossing = """(() => {
        const boxes = [...x.querySelectorAll('.label')].map(label => label.getBBox());
        const { width, height } = x.viewBox.baseVal;
        const out = boxes.filter(b => b.x < 0 || b.y < 0 || b.x + b.width > width || b.y + b.height > height);
        const both = boxes.filter((a, i) => boxes.some((b, j) => i < j && a.x < b.x + b.width && b.x < a.x + a.width
            && a.y + 3 < b.y + b.height && b.y + 3 < a.y + a.height));
        return [boxes.length, out.length, both.length] })()"""
    assert each(browser, "#charts .chart", crossing) == [[18, 0, 0], [18, 0, 0]]
    drawn = each(browser, "#charts .series", "[x.dataset.method, x.style.getPropertyValue('--c')]")
    assert dict(drawn) == {name: style.colour for name, style in looks(collect([path]).tables).items()}
    assert {url.split(":")[0] for url in browser.requests()} <= {"file", "data"}
    assert browser.run("fetch('https://example.com').then(() => 'sent', () => 'refused')") == "refused"


def test_intervals_are_drawn_against_zero_shot_and_the_first_click_puts_the_best_on_top(opened):
    zero, mark = (
        f"x.querySelector('{part}').getAttribute('{place}')" for part, place in ((".zero", "x1"), ("circle", "cx"))
    )
    drawn = each(opened, "#board-0 .ci", f"[{zero}, {mark}]")
    assert len({zero for zero, _ in drawn}) == 1
    assert [zero == value for zero, value in drawn] == [False, True, False]  # zero-shot stands on its own line
    assert names(opened) == ["apd", "zero_shot", "advtp"]
    for key, best in (("clean", "zero_shot"), ("rank", "apd"), ("parameters", "zero_shot"), ("method", "advtp")):
        click(opened, f"#board-0 th[data-key='{key}'] button")
        assert names(opened)[0] == best, key
    opened.run("document.querySelector('#board-0 th[data-key=clean] button').focus()")
    opened.press("Enter")
    opened.press("Enter")  # the second click turns it round
    assert names(opened) == ["advtp", "apd", "zero_shot"]
    assert opened.run("document.querySelector('#board-0 th[data-key=clean]').ariaSort") == "ascending"
    assert opened.run("location.hash") == "#sort=clean%2Cup"


def test_phone_and_narrow_screens(opened, page):
    mean = "document.querySelector('#heat td.mean').getBoundingClientRect().right <= innerWidth"
    assert opened.run(mean) is True
    opened.size(390, 844)
    opened.open(page.as_uri())
    assert opened.settles("document.documentElement.scrollWidth <= innerWidth")
    assert opened.run("document.querySelector('.findings b').getBoundingClientRect().bottom < innerHeight") is True
    assert each(opened, "#board-0 th[data-key]", "x.dataset.key") == ["rank", "method", "clean", "worst", "gain"]


def test_dark_print_and_no_scripts(opened, page):
    before = opened.run("getComputedStyle(document.body).backgroundColor")
    opened.run("document.getElementById('theme').click()")
    assert opened.run("getComputedStyle(document.body).backgroundColor") != before
    opened.send("Emulation.setEmulatedMedia", media="print")
    try:
        assert opened.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"  # dark on the screen, not on paper
        assert each(opened, "#charts .chart .mark", "x.tagName")
        assert not each(opened, ".tools, button:not(th button)", "x.className")
    finally:
        opened.send("Emulation.setEmulatedMedia", media="")
    assert len(opened.send("Page.printToPDF")["data"]) > 10_000
    opened.run("localStorage.clear()")
    opened.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened.open(page.as_uri())
        document = opened.send("DOM.getDocument", depth=0)["root"]["nodeId"]
        seen = opened.send("DOM.querySelectorAll", nodeId=document, selector=".board:not([hidden])")["nodeIds"]
        dead = opened.send("DOM.querySelectorAll", nodeId=document, selector="button:not([hidden], [hidden] *)")[
            "nodeIds"
        ]
        assert (len(seen), len(dead)) == (2, 0)
    finally:
        opened.send("Emulation.setScriptExecutionDisabled", value=False)


def test_the_commands_of_the_page_plan_exactly_the_stored_cells():
    """All cells of the committed store, from the words that a reader copies to the ids that `run` would measure."""
    cells = [record.cell for record in Store(Path(__file__).parents[2] / "results" / "embedded").records()]
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    planned = []
    for crossing in crossings(cells):
        options = arguments.options_of(parser.parse_args(words(crossing)[2:]))
        planned += plan(resolve(load_suite(options.suite), options)).cells
    assert sorted(cell.id for cell in planned) == sorted(cell.id for cell in cells)


def test_the_command_and_the_protocol_name_a_training_budget_that_is_not_the_tested_one(tmp_path):
    items = grid({"apd": SHARES["apd"]}, seeds=(1,), eps=4 / 255, fit={"train_eps": 2 / 255})
    page, text = write_boards([fill(tmp_path / "r", items)], tmp_path, ["html", "md"])
    assert re.search("--eps 4/255 --seeds 1 --shots 16 --limit all .*--set train_eps=2/255<", page.read_text())
    assert "adversarial training at eps 2/255" in text.read_text()


def test_base_and_new_classes_stand_side_by_side(tmp_path):
    items = []
    for classes in ("base", "new"):
        halves = {"task": "base_to_new", "fit": {"classes": "base"}, "classes": classes}
        items += grid({"apd": SHARES["apd"], "advtp": SHARES["advtp"]}, seeds=(1,), **halves)
    page, text = write_boards([fill(tmp_path / "r", items)], tmp_path, ["html", "md"])
    assert "harmonic means" in page.read_text()
    assert 'data-facet="task" data-value="base-to-new, new classes"' in page.read_text()
    head = "| method | base clean | new clean | H clean | base worst | new worst | H worst |"
    assert head in text.read_text()


def test_the_page_opens_with_the_board_of_the_most_verdicts(tmp_path):
    items = grid(SHARES, seeds=(1,)) + grid(SHARES, seeds=(1, 2), eps=8 / 255)
    (page,) = write_boards([fill(tmp_path / "r", items)], tmp_path, ["html"])
    data = json.loads(page.read_text().partition('id="data">')[2].partition("</script>")[0])
    assert len(data["boards"]) == 2 and data["first"] == 1
