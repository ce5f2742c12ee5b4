"""User errors carry one message, one hint and one exit code, and survive a trip between processes."""

import json
import pickle
import sys

from rich.console import Console

from apd_bench.cli.console import err, err_again, out, out_json
from apd_bench.core import errors
from apd_bench.core.text import plain, printable, table
from apd_bench.runner.live import LiveReporter
from apd_bench.runner.reporter import PlainReporter


def test_message_and_hint_read_as_one_line_also_behind_a_pickle():
    error = errors.CorruptFile("weights.safetensors is torn.", hint="Reinstall the package.")
    assert str(error) == "weights.safetensors is torn. Reinstall the package."
    assert error.exit_code == errors.EXIT_USAGE
    assert errors.RegressionFound("stale").exit_code == errors.EXIT_REGRESSION
    error = pickle.loads(pickle.dumps(errors.UnknownName("what", hint="why")))  # noqa: S301
    assert (type(error), error.message, error.hint, str(error)) == (errors.UnknownName, "what", "why", "what why")


def test_unknown_name_names_the_nearest_and_the_command():
    error = errors.unknown_name("method", "adp", ["apd", "advtp", "zero_shot"], command="apd-bench list methods")
    assert "'adp'" in str(error)
    assert "Did you mean 'apd'?" in str(error)
    assert "advtp, apd, zero_shot" in str(error)
    assert "apd-bench list methods" in str(error)


EVIL = "apd\x1b[31m\x07\x9b2J\u202e\r"


def test_what_could_steer_a_terminal_is_written_out(capsys):
    error = errors.UsageError(f"{EVIL}.", hint=EVIL)
    assert str(error) == r"apd\x1b[31m\x07\x9b2J\u202e\r. apd\x1b[31m\x07\x9b2J\u202e\r"
    assert printable("kept\n\tas it is: é, 名, ²") == "kept\n\tas it is: é, 名, ²"
    assert printable("a\udcff\ud800") == r"a\xff\ud800" and plain("a\ud800\u2060b") == "a b"
    out_json({EVIL: EVIL + "\x7f"})
    assert json.loads(capsys.readouterr().out) == {EVIL: EVIL + "\x7f"}
    out(EVIL)
    err_again(EVIL, last=True)
    err(table([(EVIL, "a\nb")], header=("x", "y")))
    PlainReporter().message(EVIL)
    LiveReporter(Console(file=sys.stderr, force_terminal=False)).message(f"{EVIL} [bold]x[/bold]")
    written = "".join(capsys.readouterr())
    assert written.count(r"\x1b") == 5 and "[bold]x" in written and "a b" in written
    assert not set(written[1:].replace("\n\r", "\n")) & set("\x1b\x07\x9b\u202e\r")


def test_endless_words_and_long_listings_are_cut():
    end = f" is no path like {'a' * 390}."
    assert str(errors.UsageError(f"'{'9' * 5000}'{end}")).endswith(f"…{end}")
    text = str(errors.unknown_name("dataset", "x", [f"set{i:03d}" for i in range(100)]))
    assert "(100 in all)" in text
    assert "set099" not in text
    near = str(errors.unknown_name("dataset", "set09", [f"set{i:03d}" for i in range(100)]))
    assert "The nearest are set090, set091" in near or "The nearest are set009" in near
    assert near.count("set") <= 11
