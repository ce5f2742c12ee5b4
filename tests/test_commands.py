"""Every command that README, help and page print works: it is run, or planned where it would take long."""

import io
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from synthetic import fill, grid

from apd_bench.cli import VERBS, main, parsed, verb_parser
from apd_bench.cli.run import next_steps
from apd_bench.cli.topics import SUITE
from apd_bench.core.errors import EXIT_DONE
from apd_bench.core.registry import METHODS
from apd_bench.leaderboard.boards import collect
from apd_bench.leaderboard.columns import table_columns
from apd_bench.leaderboard.terminal import render_terminal
from apd_bench.records.store import Store
from apd_bench.runner.session import plan_of
from tests.pages import EXAMPLES, ROOT

README = (ROOT / "README.md").read_text("utf-8")
# Trained, attacked, downloaded or sent away: the tests of these verbs do it. Here their words are read.
WORK = ("fit", "tune", "verify", "audit", "examples", "submit", "push", "import", "check", "doctor", "log",
        "plan --calibrate", "verify-submission", "datasets prepare", "datasets check")  # fmt: skip
ABSENT = ("prompts/", "hf://")  # prompts that were imported before
SHARES = {name: {"clean": 0.8, "pgd": share, "cw": share} for name, share in
          (("apd", 0.4), ("advtp", 0.2), ("zero_shot", 0.1))}  # fmt: skip


def commands():
    """Each command once, with the page that it stands on; those with a placeholder are none."""
    texts = {"README": "\n".join(re.findall(r"```(?:bash)?\n(.*?)```", README, re.S))}
    texts |= {f"help of {verb}": str(verb_parser(verb).epilog) for verb in VERBS}
    for path in sorted((ROOT / "apd_bench/leaderboard/web").glob("*.html")):
        texts[path.name] = "\n".join(re.findall(r"<code>(.*?)</code>", path.read_text("utf-8"), re.S))
    lines = [(place, line) for place, text in texts.items() for line in re.sub(r"\\\n\s*", "", text).splitlines()]
    lines += [("README", " ".join(item.split())) for item in re.findall(r"`(apd-bench [^`]+)`", README)]
    found = {}
    for place, line in lines:
        command = re.split(r" {2,}| \| ", re.sub(r"^.*&& |^Next: ", "", line.strip()))[0]
        if command.startswith("apd-bench ") and not re.search(r"[{$]|\b(RECORD|CELL|FIT|PATH)\b|\.\.\.", command):
            found.setdefault(command, place)
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with all that the commands name: records, suites, images, a method."""
    base = tmp_path_factory.mktemp("commands")
    items = [item for eps in (1 / 255, 3 / 255) for item in grid(SHARES, seeds=(1, 2), eps=eps)]
    for name in ("results", "mine", "theirs", "more", "parts/1-of-2", "parts/2-of-2"):
        fill(base / name, items)
    shutil.copytree(base / "results", base / "results/embedded")
    (base / "results/tuning").mkdir()
    for name in ("mine.toml", "results/tuning/tuned.toml"):
        (base / name).write_text(SUITE)
    for name in ("mine.py", "my_method.py"):
        (base / name).write_text(EXAMPLES["own_objective.py"].replace("QUIET", "METHOD"))
    for label in ("cat", "dog"):
        (base / "my-images" / label).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((8, 8, 3), 60 * number, np.uint8)
            Image.fromarray(pixels).save(base / "my-images" / label / f"{number}.png")
    assert main(["report", str(base / "results"), "--out", str(base / "leaderboards")]) == EXIT_DONE
    return base


@pytest.mark.parametrize("command", commands())
def test_a_printed_command_works(command, base, monkeypatch):
    words = shlex.split(command.replace("3fa9", next(Store(base / "results").records()).id[:8]))[1:]
    monkeypatch.chdir(base)
    monkeypatch.setenv("APD_BENCH_DRY_RUN", "1")  # `run` shows its plan
    words = [item for word in words for item in (map(str, sorted(Path().glob(word))) if "/*" in word else [word])]
    if len(words) == 1 and words[0] in VERBS:
        assert f"apd-bench {words[0]}" in verb_parser(words[0]).format_help()  # a verb is named, no more
    elif " ".join(words).startswith(WORK) or any(name in command for name in ABSENT):
        parsed(words[0], words[1:])
    else:
        assert main(words) == EXIT_DONE


QUICK = {
    "APD_BENCH_JOBS": "1", "APD_BENCH_DEVICE": "cpu", "APD_BENCH_DISPLAY": "none", "APD_BENCH_LIMIT": "2",
    "APD_BENCH_SHOTS": "1", "APD_BENCH_SET": "training.epochs=1", "APD_BENCH_ATTACKS": "fgsm",
}  # fmt: skip
# With the embedded models, in this order in one folder: later ones read what earlier ones leave. The rest of WORK needs
# weights, a network or a cluster that is not here, or minutes; `verify` is run by .ci/run.
FOR_REAL = (
    "run --methods apd,apt --datasets all", "run --set training.epochs=5 --seeds 1-3", "run --failed", "run mine.toml",
    "run --methods my_method.py:METHOD", "run --log run.jsonl", "log run.jsonl", "fit --methods apd --datasets all",
    "fit --methods apd --seeds 1-3 --force", "plan --calibrate", "doctor --json", "datasets check", "check apd",
    "check ttc", "check my_method.py:METHOD", "submit results",
    "verify-submission submission.tar.gz --methods my_method.py:METHOD", "submit --methods apd --author 'A. Name'",
    "verify-submission submission.tar.gz --accept results",
)  # fmt: skip


def test_what_works_on_the_embedded_models_is_carried_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "mine.toml").write_text(SUITE)
    (tmp_path / "my_method.py").write_text(EXAMPLES["own_objective.py"].replace("QUIET", "METHOD"))
    printed = commands()
    for command in FOR_REAL:
        assert f"apd-bench {command}" in printed
        assert main(shlex.split(command)) == EXIT_DONE, (command, capsys.readouterr())
        for name in list(METHODS.files):
            METHODS.unregister(name)
    assert {record.status for record in Store("results").records()} == {"success"}


def test_commands_are_found_where_people_read_them():
    places = list(commands().values())
    assert {place for place in places if place.startswith("help of")} == {f"help of {verb}" for verb in VERBS}
    assert places.count("README") > 10 and "page.html" in places


def test_the_readme_shows_what_its_command_prints():
    """Of the committed records, which are those of the command."""
    store = ROOT / "results/default"
    options = parsed("run", ["--methods", "apd,apt", "--datasets", "all"]).options
    cells = {cell.id for cell in plan_of(options).cells}
    assert cells == Store(store).statuses().keys()
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    boards = collect([store], cells)
    render_terminal(boards, console)
    files = [options.boards / f"embedded{ending}" for ending in ("-datasets.csv", ".csv", ".html", ".md")]
    printed = console.file.getvalue() + "\n".join(next_steps(boards.tables, files, options))
    assert "\n".join(line.rstrip() for line in printed.splitlines()) in README, printed


def test_an_interrupted_run_sends_nobody_to_its_half_finished_table():
    options = parsed("run", []).options
    tables = collect([ROOT / "results/default"]).tables
    assert list(next_steps(tables, [], options)) == ["Next: apd-bench compare apd zero_shot"]
    assert list(next_steps(tables, [], options, finished=False)) == [
        "Next: the same command, which goes on where this one stopped."
    ]


def test_tables_of_the_readme_name_their_columns_as_boards_do():
    known = {column.heading for column in table_columns(("pgd", "cw", "worst.fast", "autoattack"), "html")}
    heads = [head.split(" | ") for head in re.findall(r"^\| (rank .*) \|$", README, re.M)]
    heads += [re.findall(r"95 %|vs zero-shot|\S+", head) for head in re.findall(r"^rank +method .*$", README, re.M)]
    assert heads
    for names in heads:
        assert {*names} - {"before tuning", "tuned"} <= known  # scores of a search, not of a board
