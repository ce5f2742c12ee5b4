"""The live view on terminals: it fits, it survives a resize, and it leaves nothing behind but what was said."""

import io
import os
import re
import select
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import make_plan
from rich.console import Console
from synthetic import outcomes
from test_driver import go

from apd_bench.core.specs import AttackSpec
from apd_bench.records.store import Store
from apd_bench.runner.estimate import passes_of
from apd_bench.runner.live import LiveReporter, Standings
from apd_bench.runner.queue import WorkQueue
from apd_bench.runner.report import RunReport
from apd_bench.runner.tasks import Progress, Task

pty = pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")
METHODS = tuple(f"method-{number}" for number in range(26))
SETS = tuple(f"set-{number}" for number in range(11))
SCRIPT = """
from fakes import make_plan
from test_driver import go
from apd_bench.core.options import RunOptions
from apd_bench.runner.session import make_reporter
from apd_bench.records.store import Store
if __name__ == "__main__":
    plan = make_plan(datasets=("a", "b", "c"))
    try:
        report = go(plan, Store({results!r}), jobs={jobs}, reporter=make_reporter(RunOptions()))
    except KeyboardInterrupt:
        raise SystemExit(130)
    raise SystemExit(report.exit_code)
"""


class Screen:
    """A terminal of endless height that wraps its lines anew when it becomes narrower."""

    def __init__(self):
        self.lines, self.row, self.column = [""], 0, 0

    def feed(self, text):
        for sign in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if sign == "\r":
                self.column = 0
            elif sign == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif sign.startswith("\x1b"):
                self._control(sign)
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + sign + line[self.column + len(sign) :]
                self.column += len(sign)
        return self

    def _control(self, sign):
        if sign == "\x1b[2K":
            self.lines[self.row] = ""
        elif sign.endswith("A"):
            self.row -= int(sign[2:-1])

    def narrow(self, width):
        wrapped = [[line[at : at + width] for at in range(0, len(line), width)] or [""] for line in self.lines]
        self.row = sum(map(len, wrapped[: self.row + 1])) - 1
        self.lines = [line for lines in wrapped for line in lines]

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


def started(plan, width, height, *, only_fits=False):
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    reporter = LiveReporter(console)
    cells = () if only_fits else plan.cells
    report = RunReport(planned=len(plan.cells), to_do=len(cells), fits_to_do=len(plan.fits))
    reporter._live.auto_refresh = False
    reporter.start(report, WorkQueue(cells, plan.fits.values()), plan)
    return reporter, console


def lines_of(reporter):
    lines = reporter.console.render_lines(reporter.render(), pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60)])
def test_a_large_grid_is_no_larger_than_the_terminal_and_the_last_line_is_there(width, height):
    plan = make_plan(methods=METHODS, datasets=SETS)
    reporter, _ = started(plan, width, height)
    for cell in plan.cells[-8:]:
        reporter.task_started(Task(fit=cell.fit, cell=cell))
    lines = lines_of(reporter)
    assert len(lines) < height and max(map(len, lines)) <= width
    assert lines[-1].startswith("0/572 cells")
    assert any(line.startswith("method-25") for line in lines)  # something goes on there
    shown = sum(line.startswith("method-") for line in lines)
    assert shown == 26 or any(line.startswith(f"{26 - shown} more") for line in lines)


def test_each_set_has_a_sign_where_there_is_room_and_a_grid_of_fits_counts_fits():
    plan = make_plan(datasets=SETS, methods=("one",), seeds=tuple(range(1, 41)))
    reporter, _ = started(plan, 80, 24)
    assert lines_of(reporter)[0].split() == ["method", "clean", "worst", "cells", "11", "datasets"]
    assert lines_of(reporter)[1].split() == ["one", "0/880", "·" * 11]
    reporter._done[("one", "set-0")] = 80
    reporter._done[("one", "set-3")] = 1
    reporter._bad[("one", "set-5")] = 1
    assert "█··▒·!·····" in lines_of(reporter)[1]
    reporter.console.width = 40
    assert lines_of(reporter)[0].split() == ["method", "clean", "worst", "cells"]
    reporter, _ = started(make_plan(seeds=(1, 2, 3)), 80, 24, only_fits=True)
    lines = lines_of(reporter)
    assert lines[1].split() == ["one", "0/6", "··"] and lines[-1].startswith("0/12 fits")


def test_the_table_fills_with_clean_and_worst_of_what_is_measured_so_far(tmp_path):
    """Worst is by sample over the attacks of a set, a mean over sets, and knows what an earlier run has stored."""
    store = Store(tmp_path / "results")
    plan = make_plan(methods=("one", "two"), datasets=("a", "b"))
    go(replace(plan, cells=plan.cells[:1]), store)
    reporter, _ = started(plan, 80, 24)
    reporter = LiveReporter(reporter.console, store)
    assert go(plan, store, reporter=reporter).computed

    def shares(method):
        sets = {}
        for cell in plan.cells:
            if cell.fit.method.name == method:
                found = store.outcomes(cell.id)
                _, stands = sets.get(cell.dataset.name, (None, True))
                sets[cell.dataset.name] = found.clean_prediction == found.label, ~found.broken & stands
        return [f"{100 * sum(pair[which].mean() for pair in sets.values()) / len(sets):.1f}" for which in (0, 1)]

    lines = [line.split() for line in lines_of(reporter)]
    assert lines[1] == ["one", *shares("one"), "4/4", "██"] and lines[2] == ["two", *shares("two"), "4/4", "██"]
    assert lines[1][2] != lines[2][2]


def test_shards_of_a_set_count_together_and_distances_not_at_all():
    first, second = make_plan(methods=("one",), datasets=("a",)).cells
    standings = Standings(lambda cell: "row")
    one, another, none = (outcomes([1, 1, 1], kept) for kept in ([0, 1, 1], [1, 0, 1], [1, 1, 1]))
    assert standings.shares("row") is None
    standings.add(first, (0, 2), one)
    standings.add(first, (1, 2), none)
    assert standings.shares("row") == (1.0, 5 / 6)
    standings.add(second, (0, 2), another)
    standings.add(replace(second, attack=AttackSpec(name="ddn")), (1, 2), one)
    assert standings.shares("row") == (1.0, 4 / 6)


def test_the_member_of_a_suite_and_how_far_it_is_are_named():
    plan = make_plan(methods=("one",), datasets=("a",), attacks=("autoattack",), seeds=(1, 2))
    reporter, _ = started(plan, 80, 24)
    task = Task(fit=plan.cells[0].fit, cell=plan.cells[0])
    reporter.task_started(task)
    reporter.tick({task.id: Progress(done=2, total=12, passes=1000, phase="1/4 apgd-ce")})
    reporter.tick({task.id: Progress(done=8, total=12, broken=6, passes=3000, phase="4/4 square")})
    reporter.tick({task.id: Progress(done=8, total=12, broken=6, passes=3000 + 4 * 2500, phase="4/4 square")})
    assert "4/4 square 50%, 8/12 samples, 6 broken  one a autoatt" in lines_of(reporter)[-2]
    assert max(map(len, lines_of(reporter))) <= 80


def test_numbers_come_before_names_and_a_bar_grows_with_the_passes():
    plan = make_plan(methods=("a-very-long-name-of-a-method-with-many-options",), datasets=("b" * 60,))
    reporter, _ = started(plan, 60, 24)
    task = Task(fit=plan.cells[0].fit, cell=plan.cells[0])
    reporter.task_started(task)
    reporter.tick({task.id: Progress(done=6, total=12, broken=4)})
    assert "█████····· " in lines_of(reporter)[-2] and "6/12 samples, 4 broken  a-very" in lines_of(reporter)[-2]
    plan = make_plan(attacks=("autoattack",))
    reporter, _ = started(plan, 80, 24)
    task = Task(fit=plan.cells[0].fit, cell=plan.cells[0])
    reporter.task_started(task)
    reporter.tick({task.id: Progress(done=0, total=12, passes=sum(passes_of(plan.cells[0])) / 2)})
    assert lines_of(reporter)[-2].startswith("█████·····") and " left" in lines_of(reporter)[-1]


def test_a_terminal_that_becomes_narrower_keeps_what_was_said_and_shows_one_view():
    plan = make_plan(methods=("a-method-whose-name-takes-a-lot-of-room-on-the-line",), datasets=("a", "b"))
    reporter, console = started(plan, 80, 24)
    screen = Screen()
    stream = console.file
    assert isinstance(stream, io.StringIO)

    def show():
        reporter._live.refresh()
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return screen.feed(text).text

    for cell in plan.cells[:3]:
        reporter.task_started(Task(fit=cell.fit, cell=cell))
    assert show().count("cells,") == 1
    screen.narrow(50)
    console.width = 50
    assert show().count("cells,") == 1 and screen.text.count("········") == 3
    assert "4 cells: 4 to measure, 2 fits to train." in screen.text
    console.width = 120
    assert show().count("cells,") == 1
    reporter.message("something happened")
    reporter.finish(RunReport(to_do=4, seconds=1))
    screen.feed(stream.getvalue())
    assert screen.text.splitlines() == [
        "4 cells: 4 to measure, 2 fits to train.",
        "something happened",
        "Measured 0 cells and trained 0 fits in 1.0 s.",
    ]


@pytest.fixture
def command(tmp_path):
    """A run of twelve fake cells, from a file, as a command."""

    def make(jobs):
        path = tmp_path / f"run{jobs}.py"
        path.write_text(SCRIPT.format(results=str(tmp_path / "results"), jobs=jobs))
        return [sys.executable, str(path)]

    return make


def on_a_terminal(command, *, act=lambda pid, text: None, pause="0.1"):
    """The exit code of a command on a terminal of 80 columns, and all that it wrote; `act` is called all the time."""
    import fcntl
    import termios

    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "FAKE_SECONDS": pause, "TERM": "xterm"}
    process = subprocess.Popen(
        command, stdin=there, stdout=there, stderr=there, env=environment, start_new_session=True, close_fds=True
    )
    os.close(there)
    content = b""
    while process.poll() is None or select.select([here], [], [], 0)[0]:
        if select.select([here], [], [], 0.05)[0]:
            try:
                content += os.read(here, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
        act(process.pid, content.decode(errors="replace"))
    os.close(here)
    return process.wait(timeout=60), content.decode().replace("\r\n", "\n")


def test_on_a_terminal_the_view_comes_and_goes_and_the_summary_stays(command):
    code, text = on_a_terminal(command(1), pause="0.4")  # longer than the view needs to show a batch
    assert code == 0
    said = Screen().feed(text).text.splitlines()
    assert said[:2] == ["starting ...", "12 cells: 12 to measure, 6 fits to train."]
    assert said[2].startswith("Measured 12 cells and trained 6 fits in ") and len(said) == 3
    assert "/12 cells, " in text and " passes/s" in text and "broken" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


class Keys:
    """Presses Ctrl-C `times` times, as a terminal does, once a sample batch is done."""

    def __init__(self, times):
        self.times, self.pressed = times, 0

    def __call__(self, pid, text):
        if self.pressed < self.times and re.search(r" [48]/12 samples", text) and (not self.pressed or "once" in text):
            self.pressed += 1
            os.killpg(pid, signal.SIGINT)


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_on_a_terminal_ends_with_130_and_the_same_command_goes_on(command, tmp_path, log, jobs):
    keys = Keys(times=1)
    code, text = on_a_terminal(command(jobs), act=keys, pause="0.4")  # longer than the view needs to show a batch
    assert keys.pressed == 1 and code == 130
    said = Screen().feed(text).text.splitlines()
    assert "stopping after the current batch of samples; press Ctrl-C again to stop at once" in " ".join(said)
    assert said[-1].startswith("Interrupted with ") and "Traceback" not in text
    done = {cell for cell, status in Store(tmp_path / "results").statuses().items() if status == "success"}
    assert len(done) < 12
    assert on_a_terminal(command(jobs), pause="0")[0] == 0
    batches = [line for line in log() if line.startswith("batch")]
    assert len(batches) == len(set(batches)) == 36  # no batch of samples was done twice, none is missing


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_second_ctrl_c_ends_at_once_and_the_terminal_is_usable(command, jobs):
    keys = Keys(times=2)
    code, text = on_a_terminal(command(jobs), act=keys, pause="2")
    assert keys.pressed == 2 and code == 130
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert on_a_terminal(command(jobs), pause="0")[0] == 0
