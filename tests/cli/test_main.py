"""Every verb answers --help, mistakes are one line with the nearest match, and nothing heavy is loaded for help."""

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest

import apd_bench
from apd_bench import __version__, run
from apd_bench.cli import VERBS, parsed
from apd_bench.cli.topics import SUITE, TOPICS
from apd_bench.core import options
from apd_bench.core.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, UserError
from apd_bench.leaderboard.columns import table_columns
from apd_bench.suites import suite_from


def test_version_and_help(cli):
    assert cli("--version").out == f"apd-bench {__version__}\n"
    for words in ((), ("--help",), ("-h",), ("help",)):
        result = cli(*words)
        assert result.code == EXIT_DONE and "examples:" in result.out
        assert all(verb in result.out for verb in VERBS) and max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_with_examples(cli, verb):
    result = cli(verb, "--help")
    assert result.code == EXIT_DONE
    assert f"apd-bench {verb}" in result.out and "examples:" in result.out
    assert cli("help", verb).out == result.out
    every = cli(verb, "--help-all").out
    assert max(map(len, every.splitlines())) <= 80
    shown, named = (set(re.findall(r"^  (--[a-z-]+|-\w, --[a-z-]+)", text, re.M)) for text in (result.out, every))
    assert shown <= named and ("--help-all" in result.out) == (shown != named)


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_help_shows_ten_options_first(cli, verb):
    shown = re.findall(r"^  (--[a-z]+)", cli(verb, "--help").out.replace("--help-all", ""), re.M)
    assert len([name for name in shown if name not in ("--all", "--json")]) == len(options.COMMON) == 10


@pytest.mark.parametrize("topic", TOPICS)
def test_topics_have_texts_no_wider_than_the_terminal(cli, topic):
    text = cli("help", topic).out
    assert max(map(len, text.splitlines())) <= 80 and len(text) > 500
    if topic == "environment":
        assert all(item.variable in text for item in options.table().values())
    if topic == "columns":
        assert all(f"{column.heading}\n" in text for column in table_columns((), "html") if column.help)


def test_the_suite_of_the_help_plans(cli, tmp_path):
    (tmp_path / "mine.toml").write_text(SUITE)
    result = cli("plan", "mine.toml")
    assert result.code == EXIT_DONE and "apd" in result.out and "food" in result.out


@pytest.mark.parametrize(("line", "expected"), [
    ("apd-bench sho", ["show"]),
    ("apd-bench run --meth", ["--methods"]),
    ("apd-bench run --methods apd,fa", ["apd,fap"]),
    ("apd-bench plan fap-c", ["fap-cross"]),
])  # fmt: skip
def test_shells_complete_verbs_options_and_names(line, expected, tmp_path):
    pytest.importorskip("argcomplete")
    said = tmp_path / "said"
    shell = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    where = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(said)}
    subprocess.run([sys.executable, "-m", "apd_bench"], env={**os.environ, **shell, **where}, check=False)
    assert [name for name in said.read_text().split("\n") if "." not in name] == expected


@pytest.mark.parametrize(("words", "expected"), [
    (("rnu",), "Unknown verb 'rnu'. Did you mean 'run'?"),
    (("--results", "x"), "The first word is a verb"),
    (("run", "--epz", "1/255"), "Unknown option '--epz'. Did you mean '--eps'?"),
    (("run", "--eps", "8"), "--eps 8/255"),
    (("run", "--eps", "much"), "eps 'much' is not a number"),
    (("run", "--eps", "1e400"), "eps '1e400' is not a number"),
    (("run", "--methods", "apdd"), "Did you mean 'apd'?"),
    (("run", "--datasets", "fashio"), "Did you mean 'fashion'?"),
    (("run", "--attacks", "pdg"), "Did you mean 'pgd'?"),
    (("run", "--attacks", "pgd(eps=8/255)"),
     "The budget is no option of pgd: all attacks have the same. Write --eps 8"),
    (("run", "--attacks", "cw(norm='L2')"), "Write --set norm=L2."),
    (("run", "--attacks", "pgd(eps=much)"), "'much' in pgd(eps=...) is neither a number"),
    (("run", "--backbone", "./file.pt"), "local:./file.pt@"),
    (("run", "--datasets", "./pets"), "folder:./pets"),
    (("run", "--methods", "./coop.pth.tar"), "apd-bench import ./coop.pth.tar --format"),
    (("run", "--set", "norm=L2"), "The usual L2 budget is 0.5"),
    (("run", "--suite", "embeded"), "Did you mean 'embedded'?"),
    (("run", "--limit", "0"), "--limit takes a number of samples"),
    (("run", "--jobs", "none"), "--jobs takes a number of processes"),
    (("run", "--batch-size", "big"), "--batch-size takes a number of images"),
    (("run", "--seeds", "one"), "--seeds takes whole numbers"),
    (("run", "--seeds", "3-1"), "--seeds 3-1 runs backwards. Write --seeds 1-3."),
    (("run", "--attacks", "worst(steps=1e400)"), "steps has to be a whole number of at least 1"),
    (("run", "--force", "--missing"), "not allowed with"),
    (("run", "--set", "training.epoch=3"), "Did you mean 'epochs'?"),
    (("run", "--device", "tpu"), "Device 'tpu' is not one of"),
    (("run", "--device", "tpu", "--dry-run"), "Device 'tpu' is not one of"),
    (("list", "metods"), "Did you mean 'methods'?"),
    (("show", "apdd"), "Did you mean 'apd'?"),
    (("show", "deadbeef"), "There is no cell 'deadbeef'"),
])  # fmt: skip
def test_a_mistake_is_one_line_on_standard_error_and_exit_2(cli, words, expected):
    result = cli(*words)
    assert result.code == EXIT_USAGE
    assert result.out == ""
    assert result.err.startswith("apd-bench: error: ") and result.err.count("\n") == 1
    assert expected in result.err


VALUES = {
    "suite": "ci", "backbones": "tiny-clean", "methods": "apd", "datasets": "food", "attacks": "cw", "eps": "1/255",
    "seeds": "1-3", "shots": "2", "limit": "9", "part": "3/8", "settings": "precision=bf16", "results": "r",
    "data": "d", "boards": "b", "jobs": "3", "device": "cpu", "batch_size": "7", "shard": "5", "executor": "ray",
    "address": "auto", "slurm": "time=10", "gpu": "a100", "defences": "ttc",
    "display": "json", "log": "run.jsonl",
}  # fmt: skip


def test_every_option_is_heard_on_the_command_line_in_the_environment_in_a_suite_and_in_python(monkeypatch, tmp_path):
    suite = tmp_path / "s.toml"
    for name, item in options.table().items():
        value = VALUES.get(name, True)
        default = getattr(options.RunOptions(), name)
        said = getattr(parsed("run", [item.flag, *([str(value)] if name in VALUES else [])]).options, name)
        assert said != default, name
        assert getattr(options.options_from_python({name: value}), name) == said
        with monkeypatch.context() as patch:
            patch.setenv(item.variable, str(value))
            assert getattr(parsed("run", []).options, name) == said, name
        if item.group != options.WHAT:
            suite.write_text(f'extends = "blank"\n[options]\n{name} = {json.dumps(value)}\n')
            assert getattr(parsed("run", [str(suite)]).options, name) == said, name
        else:
            with pytest.raises(UserError, match=name):
                suite_from({"options": {name: value}})


def test_the_command_line_wins_over_the_environment_and_that_over_the_suite(monkeypatch, tmp_path):
    suite = tmp_path / "s.toml"
    suite.write_text('extends = "blank"\n[options]\njobs = 3\nquiet = true\n')
    monkeypatch.setenv("APD_BENCH_JOBS", "4")
    monkeypatch.setenv("APD_BENCH_QUIET", "0")
    chosen = parsed("run", [str(suite)]).options
    assert (chosen.jobs, chosen.quiet) == (4, False)
    assert parsed("run", [str(suite), "--jobs", "5"]).options.jobs == 5


def test_a_new_option_is_one_field(cli, monkeypatch, tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class More(options.RunOptions):
        colour: str = options.option("red", options.choice("red", "blue"), options.HOW, "the ink", metavar="INK")

    monkeypatch.setattr(options, "RunOptions", More)
    assert "--colour INK" in cli("run", "--help-all").out and "the ink (default: red)" in cli("fit", "--help-all").out
    assert parsed("run", ["--colour", "blue"]).options.colour == "blue"
    suite = tmp_path / "s.toml"
    suite.write_text('extends = "blank"\n[options]\ncolour = "blue"\n')
    assert parsed("plan", [str(suite)]).options.colour == "blue"
    with pytest.raises(UserError, match="colour"):
        run("blank", colour="green")
    monkeypatch.setenv("APD_BENCH_COLOUR", "blue")
    assert parsed("run", []).options.colour == "blue"


def test_lists_that_are_given_twice_add_up():
    words = ["--methods", "apd", "--seeds", "1", "--methods", "apt,fap", "--set", "a=1", "--set", "b=2", "--seeds", "3"]
    chosen = parsed("run", words).options
    assert (chosen.methods, chosen.seeds, chosen.settings) == (("apd", "apt,fap"), (1, 3), ("a=1", "b=2"))
    assert parsed("compare", ["a", "b", "--results", "x", "--results", "y"]).results == [Path("x"), Path("y")]
    assert parsed("compare", ["a", "b"]).results == [Path("results")]
    assert parsed("report", ["--methods", "apd", "--methods", "fap"]).methods == ["apd", "fap"]


def test_a_suite_file_sets_options_and_names_those_that_are_none(cli, tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text('extends = "blank"\n[options]\nresults = "elsewhere"\ndry_run = true\njobs = 2\n')
    grid = {"--backbone": "tiny-clean", "--datasets": "food", "--attacks": "pgd", "--eps": "1/255", "--methods": "coop"}
    words = [word for pair in grid.items() for word in pair]
    result = cli("run", "mine.toml", *words)
    assert result.code == EXIT_DONE and "to do" in result.out and not (tmp_path / "elsewhere").exists()
    assert cli("plan", "mine.toml", *words).code == EXIT_DONE  # it has no --dry-run
    for line, said in (("job = 2", "Did you mean 'jobs'?"),
                       ("jobs = 0", "'jobs' in [options] takes a number of processes, not '0'"),
                       ('display = "cinema"', "cinema"),
                       ("jobs = 1.5", "not '1.5'"), ('methods = "apd"', "methods")):  # fmt: skip
        suite.write_text(f'extends = "blank"\n[options]\n{line}\n')
        wrong = cli("run", "mine.toml", *words)
        assert wrong.code == EXIT_USAGE and said in wrong.err and wrong.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"), [("FORCE", "maybe"), ("DISPLAY", "cinema"), ("BATCH_SIZE", "big"), ("EXECUTOR", "x9")]
)
def test_a_wrong_environment_variable_is_named(cli, monkeypatch, name, value):
    monkeypatch.setenv(f"APD_BENCH_{name}", value)
    result = cli("run", "--dry-run")
    assert result.code == EXIT_USAGE and result.err.count("\n") == 1
    assert value in result.err and f"APD_BENCH_{name}" in result.err


def test_an_interrupt_is_exit_130_and_errors_that_are_not_the_users_keep_their_traceback(cli, monkeypatch):
    monkeypatch.setattr("apd_bench.cli.list_.execute", Mock(side_effect=[KeyboardInterrupt, ZeroDivisionError]))
    result = cli("list")
    assert result.code == EXIT_INTERRUPTED and "same command goes on" in result.err
    with pytest.raises(ZeroDivisionError):
        cli("list")


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["plan"], ["show", "apd"]])
def test_answers_that_need_no_model_do_not_import_torch(words, tmp_path):
    script = (
        "import sys; from apd_bench.cli import main; code = main(sys.argv[1:])\n"
        "sys.exit(code or ('torch' in sys.modules) * 7 or ('pandas' in sys.modules) * 8)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=str(tmp_path), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_imports_no_library_that_costs_time():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "apd_bench", "--help"], capture_output=True, check=True
    )
    modules = {line.rsplit(b"|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not modules & {b"numpy", b"rich", b"pandas", b"torch", b"rich.console"}


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    command = f"{sys.executable} -m apd_bench list suites | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, check=False)
    assert done.stderr == b"" and done.stdout.startswith(b"name")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_any_encoding_prints_and_boards_are_written_before_anything_is_printed(encoding, tmp_path):
    spoken = {"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0", "LC_ALL": "C"}
    environment = {**os.environ, **spoken, "APD_BENCH_DEVICE": "cpu"}
    suite = tmp_path / "s.toml"
    suite.write_text('extends = "blank"\ntitle = "Größe → ≤ 4/255"\n', encoding="utf-8")
    words = "--backbone tiny-clean --methods zero_shot --datasets food --attacks none --eps 1/255 --limit 5"
    for line in (f"run s.toml {words}", "report", "list suites", "list methods", "show apd", "list datasets x\u2260y"):
        command = [sys.executable, "-m", "apd_bench", *line.split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
        assert done.returncode == EXIT_DONE and b"Traceback" not in done.stderr, (line, done.stderr)
    assert list((tmp_path / "leaderboards").glob("*.md"))
    gone = "import sys, apd_bench.cli as cli; sys.stdout.write = None; cli.main(sys.argv[1:])"
    command = [sys.executable, "-c", gone, "run", "s.toml", *words.split(), "--boards", "others", "--cached-only"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    assert done.returncode != EXIT_DONE and list((tmp_path / "others").glob("*.md"))


OTHERS = {  # of pip, git, ray, Slurm
    "--force-reinstall", "--no-deps", "--upgrade", "--porcelain", "--head", "--help", "--version", "--array", "--me",
    "--noheader",
}  # fmt: skip


def test_every_option_that_a_text_names_exists(cli):
    verbs = {verb: cli(verb, "--help-all").out for verb in VERBS}
    verbs["datasets"] += "".join(cli("datasets", part, "--help").out for part in ("list", "check", "prepare", "card"))
    known = {verb: set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) for verb, text in verbs.items()}
    every = set().union(*known.values()) | OTHERS
    package = Path(apd_bench.__file__).parent
    texts = [(file.name, file.read_text(encoding="utf-8")) for file in package.parent.glob("*.md")]
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append((f"{file.name}:{node.lineno}", node.value))
    wrong, seen = set(), 0
    for place, text in texts:
        options = re.findall(r"(?<![\w-])--[a-z][\w-]*[a-z]", text) if ".py" in place else []
        seen += len(options)
        wrong |= {f"{place}: {option}" for option in options if option not in every}
        for verb, rest in re.findall(r"apd-bench ([a-z-]+)([^\n`;|]*)", text):
            written = re.findall(r"(?<![\w-])--[a-z][\w-]*[a-z]", re.sub(r"  .*", "", rest))
            wrong |= {f"{place}: {verb} {item}" for item in written if item not in known.get(verb, every) | OTHERS}
    assert not wrong and seen > 100
