"""User errors carry one message, one hint and one exit code, and survive a trip between processes."""

import pickle

from apd_bench.errors import EXIT_REGRESSION, EXIT_USAGE, CorruptFile, RegressionFound, UnknownName, unknown_name


def test_message_and_hint_read_as_one_line():
    error = CorruptFile("weights.safetensors is torn.", hint="Reinstall the package.")
    assert str(error) == "weights.safetensors is torn. Reinstall the package."
    assert error.exit_code == EXIT_USAGE
    assert RegressionFound("stale").exit_code == EXIT_REGRESSION


def test_unknown_name_names_the_nearest_and_the_command():
    error = unknown_name("method", "adp", ["apd", "advtp", "zero_shot"], command="apd-bench list methods")
    assert "'adp'" in str(error)
    assert "Did you mean 'apd'?" in str(error)
    assert "advtp, apd, zero_shot" in str(error)
    assert "apd-bench list methods" in str(error)


def test_long_listings_are_cut_but_counted():
    text = str(unknown_name("dataset", "x", [f"set{i:03d}" for i in range(100)]))
    assert "(100 in all)" in text
    assert "set099" not in text
    near = str(unknown_name("dataset", "set09", [f"set{i:03d}" for i in range(100)]))
    assert "The nearest are set090, set091" in near or "The nearest are set009" in near
    assert near.count("set") <= 11


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(UnknownName("what", hint="why")))  # noqa: S301
    assert (type(error), error.message, error.hint, str(error)) == (UnknownName, "what", "why", "what why")
