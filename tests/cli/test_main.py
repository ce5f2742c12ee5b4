"""Every verb answers --help, mistakes are one line with the nearest match, and nothing heavy is loaded for help."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from apd_bench import __version__
from apd_bench.cli import VERBS, main, verb_parser
from apd_bench.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, UserError
from apd_bench.suites import OPTIONS

Cli = Callable[..., object]


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").out == f"apd-bench {__version__}\n"
    for words in ((), ("--help",), ("-h",), ("help",)):
        result = cli(*words)
        assert result.code == EXIT_DONE and "examples:" in result.out
        assert all(verb in result.out for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_with_examples(cli: Cli, verb: str) -> None:
    result = cli(verb, "--help")
    assert result.code == EXIT_DONE
    assert f"apd-bench {verb}" in result.out and "examples:" in result.out
    assert cli("help", verb).out == result.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("rnu",), "Unknown verb 'rnu'. Did you mean 'run'?"),
        (("--results", "x"), "The first word is a verb"),
        (("run", "--epz", "1/255"), "Unknown option '--epz'. Did you mean '--eps'?"),
        (("run", "--eps", "8"), "--eps 8/255"),
        (("run", "--eps", "much"), "eps 'much' is not a number"),
        (("run", "--eps", "1e400"), "eps '1e400' is not a number"),
        (("run", "--methods", "apdd"), "Did you mean 'apd'?"),
        (("run", "--datasets", "fashio"), "Did you mean 'fashion'?"),
        (("run", "--attacks", "pdg"), "Did you mean 'pgd'?"),
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
        (("list", "metods"), "Did you mean 'methods'?"),
        (("show", "apdd"), "Did you mean 'apd'?"),
        (("show", "deadbeef"), "There is no cell 'deadbeef'"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_and_exit_2(cli: Cli, words: tuple[str, ...], expected: str) -> None:
    result = cli(*words)
    assert result.code == EXIT_USAGE
    assert result.out == ""
    assert result.err.startswith("apd-bench: error: ") and result.err.count("\n") == 1
    assert expected in result.err


def test_environment_variables_set_options_and_the_command_line_wins(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APD_BENCH_EPS", "1/255,4/255")
    monkeypatch.setenv("APD_BENCH_DATASETS", "food")
    monkeypatch.setenv("APD_BENCH_NO_REFERENCE", "yes")
    monkeypatch.setenv("APD_BENCH_SET", "training.epochs=3")
    monkeypatch.setenv("APD_BENCH_BATCH_SIZE", "17")
    args = verb_parser("run").parse_args([])
    assert (args.eps, args.datasets, args.no_reference, args.batch_size) == (["1/255,4/255"], ["food"], True, 17)
    assert args.set == ["training.epochs=3"]
    assert verb_parser("run").parse_args(["--eps", "2/255"]).eps == ["2/255"]
    plan = cli("plan", "--methods", "advtp", "--attacks", "pgd")
    assert plan.code == EXIT_DONE and plan.out.count("to do") == 2 and "food" in plan.out


VALUES = {
    "suite": "ci", "backbone": "tiny-clean", "methods": "apd", "datasets": "food", "attacks": "cw", "eps": "1/255",
    "seeds": "1-3", "shots": "2", "limit": "9", "set": "precision=bf16", "results": "r", "data": "d", "boards": "b",
    "jobs": "3", "device": "cpu", "batch_size": "7", "shard": "5", "executor": "ray", "address": "auto",
    "display": "json",
}  # fmt: skip
SWITCHES = {
    "no_reference", "offline", "missing", "failed", "force", "cached_only", "dry_run", "calibrate", "wait",
    "verbose", "quiet",
}  # fmt: skip


def test_every_option_of_a_run_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    names = vars(verb_parser("run").parse_args([])).keys() - {"named_suite"}
    assert names == VALUES.keys() | SWITCHES
    default = vars(verb_parser("run").parse_args([]))
    for name in names:
        words = [f"--{name.replace('_', '-')}", *([VALUES[name]] if name in VALUES else [])]
        said = getattr(verb_parser("run").parse_args(words), name)
        with monkeypatch.context() as patch:
            patch.setenv(f"APD_BENCH_{name.upper()}", VALUES.get(name, "1"))
            assert getattr(verb_parser("run").parse_args([]), name) == said != default[name], name


def test_every_other_option_may_stand_in_the_suite_below_its_variable_and_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    selecting = {"suite", "backbone", "methods", "datasets", "attacks", "eps", "seeds", "shots", "limit", "set"}
    assert (VALUES.keys() | SWITCHES) - selecting - {"no_reference"} == OPTIONS
    for name in OPTIONS:
        value = int(VALUES[name]) if VALUES.get(name, "").isdecimal() else VALUES.get(name, True)
        words = [f"--{name.replace('_', '-')}", *([VALUES[name]] if name in VALUES else [])]
        said = getattr(verb_parser("run").parse_args(words), name)
        assert getattr(verb_parser("run", {name: value}).parse_args([]), name) == said
    jobs = {"jobs": 3}
    assert verb_parser("run", jobs).parse_args(["--jobs", "5"]).jobs == 5
    monkeypatch.setenv("APD_BENCH_JOBS", "4")
    assert verb_parser("run", jobs).parse_args([]).jobs == 4
    monkeypatch.setenv("APD_BENCH_QUIET", "0")
    assert verb_parser("run", {"quiet": True}).parse_args([]).quiet is False


def test_a_suite_file_sets_options_and_names_those_that_are_none(cli: Cli, tmp_path: Path) -> None:
    suite = tmp_path / "mine.toml"
    suite.write_text('extends = "blank"\n[options]\nresults = "elsewhere"\ndry_run = true\njobs = 2\n')
    words = (
        "--backbone",
        "tiny-clean",
        "--datasets",
        "food",
        "--attacks",
        "pgd",
        "--eps",
        "1/255",
        "--methods",
        "coop",
    )
    result = cli("run", "mine.toml", *words)
    assert result.code == EXIT_DONE and "to do" in result.out and not (tmp_path / "elsewhere").exists()
    assert cli("plan", "mine.toml", *words).code == EXIT_DONE  # it has no --dry-run
    for line, said in (("job = 2", "Did you mean 'jobs'?"), ("jobs = 0", "--jobs"), ('display = "cinema"', "cinema"),
                       ("jobs = 1.5", "whole number"), ('methods = "apd"', "methods")):  # fmt: skip
        suite.write_text(f'extends = "blank"\n[options]\n{line}\n')
        wrong = cli("run", "mine.toml", *words)
        assert wrong.code == EXIT_USAGE and said in wrong.err and wrong.err.count("\n") == 1


@pytest.mark.parametrize(("name", "value"), [("FORCE", "maybe"), ("DISPLAY", "cinema"), ("BATCH_SIZE", "big")])
def test_a_wrong_environment_variable_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"APD_BENCH_{name}", value)
    result = cli("run", "--dry-run")
    assert result.code == EXIT_USAGE and value in result.err and result.err.count("\n") == 1


def test_an_interrupt_is_exit_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import apd_bench.cli.list_ as verb

    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "execute", interrupted)
    result = cli("list")
    assert result.code == EXIT_INTERRUPTED and "same command goes on" in result.err


def test_errors_that_are_not_the_users_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import apd_bench.cli.list_ as verb

    def broken(args: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(verb, "execute", broken)
    with pytest.raises(ZeroDivisionError):
        main(["list"])
    assert not issubclass(ZeroDivisionError, UserError)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["plan"], ["show", "apd"]])
def test_answers_that_need_no_model_do_not_import_torch(words: list[str], tmp_path: object) -> None:
    script = (
        "import sys; from apd_bench.cli import main; code = main(sys.argv[1:])\n"
        "sys.exit(code or ('torch' in sys.modules) * 7 or ('pandas' in sys.modules) * 8)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=str(tmp_path), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_costs_little(tmp_path: object) -> None:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "apd_bench", "--help"], capture_output=True, check=True
    )
    modules = {line.rsplit(b"|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not modules & {b"numpy", b"rich", b"pandas", b"torch", b"rich.console"}
    assert time.perf_counter() - began < 30  # a shared machine; the benchmark script measures it properly


def test_a_reader_that_leaves_early_is_no_error(tmp_path: object) -> None:
    command = f"{sys.executable} -m apd_bench list attacks | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, check=False)
    assert done.stderr == b"" and done.stdout.startswith(b"name")
