"""The examples of CONTRIBUTING and README are complete, short, and do what the commands in them say."""

import shlex

import pytest

import apd_bench.plugin
from apd_bench.cli import main
from apd_bench.core.errors import EXIT_DONE
from apd_bench.records.store import Store
from tests.pages import EXAMPLES, ROOT

QUICK = {
    "APD_BENCH_JOBS": "1", "APD_BENCH_DEVICE": "cpu", "APD_BENCH_QUIET": "1", "APD_BENCH_SET": "training.epochs=1",
}  # fmt: skip


def test_there_is_one_of_every_kind():
    assert sorted(EXAMPLES) == [
        f"own_{kind}.py" for kind in ("attack", "backbone", "dataset", "defence", "learner", "method", "objective")
    ]


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_runs_as_it_says(name, tmp_path, monkeypatch, capsys):
    text = EXAMPLES[name]
    assert len(text.splitlines()) < 60
    assert "from apd_bench." not in text.replace("from apd_bench.plugin import", "")
    monkeypatch.chdir(tmp_path)
    for variable, value in QUICK.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / name).write_text(text)
    commands = [line.strip() for line in text.splitlines() if line.strip().startswith("apd-bench ")]
    assert commands and all(name in line for line in commands)
    for line in commands:
        assert main(shlex.split(line)[1:]) == EXIT_DONE, capsys.readouterr()
    if any(line.startswith("apd-bench run") for line in commands):
        records = list(Store("results").records())
        assert records and all(record.done for record in records)
        assert name.removesuffix(".py") not in "".join(record.to_json() for record in records)  # no path in a record


def test_every_name_of_the_plugin_module_is_there_and_documented():
    shown = (ROOT / "apd_bench/plugin.py").read_text("utf-8")
    for name in apd_bench.plugin.__all__:
        thing = getattr(apd_bench.plugin, name)
        assert f" as {name}\n" in shown and (thing.__doc__ or name == "Terms"), name
    assert shown.count(" as ") == len(apd_bench.plugin.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Attack'"):
        _ = apd_bench.plugin.Attack
