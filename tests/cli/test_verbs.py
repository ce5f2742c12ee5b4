"""The whole way on the embedded instance: run, run again, damage, show, list, fit; numbers obey their laws."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import torch

import apd_bench
from apd_bench.attacks.catalog import UNITS
from apd_bench.cli import main
from apd_bench.core.errors import EXIT_CELLS_FAILED, EXIT_DONE, EXIT_USAGE, MissingPrerequisite, UsageError
from apd_bench.core.registry import ATTACKS
from apd_bench.records.record import sealed
from apd_bench.records.store import Store
from apd_bench.runner import stages

SMALL = (
    "--methods", "apd,apt", "--datasets", "fashion", "--attacks", "pgd(steps=3),cw(steps=3)", "--limit", "6",
    "--shots", "1", "--set", "training.epochs=1", "--jobs", "1", "--device", "cpu",
)  # fmt: skip


def but(*words):
    """SMALL with the options of `words` instead of its own."""
    pairs = zip(SMALL[::2], SMALL[1::2], strict=True)
    return (*(word for pair in pairs if pair[0] not in words for word in pair), *words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store with one small finished run."""
    folder = tmp_path_factory.mktemp("finished")
    code = main(["run", *SMALL, "--results", str(folder / "results"), "--boards", str(folder / "boards"), "-q"])
    assert code == EXIT_DONE
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished store in the current folder."""
    shutil.copytree(finished / "results", tmp_path / "results")
    return tmp_path / "results"


def test_a_run_leaves_records_outcomes_fits_and_boards(finished):
    store = Store(finished / "results")
    records = list(store.records())
    assert len(records) == 6 and all(record.done for record in records)
    assert {record.cell.fit.method.name for record in records} == {"zero_shot", "apd", "advtp"}
    assert all(record.metrics["n"] == 6 and len(store.outcomes(record.id)) == 6 for record in records)
    assert len(list(store.fits.iterdir())) == 3
    assert (finished / "boards" / "embedded.md").is_file() and (finished / "boards" / "embedded.csv").is_file()
    assert str(finished) not in "".join(path.read_text() for path in store.cells.rglob("*.json"))


def test_robust_is_at_most_clean_and_the_rows_differ(finished):
    store = Store(finished / "results")
    margins = {}
    for record in store.records():
        outcomes = store.outcomes(record.id)
        wrong = outcomes.clean_prediction != outcomes.label
        assert record.metrics["robust_accuracy"] <= record.metrics["clean_accuracy"]
        assert bool(outcomes.broken[wrong].all())
        margins[record.cell.fit.method.name] = outcomes.extra["clean_margin"].tolist()
    assert len({json.dumps(margin) for margin in margins.values()}) == 3


def test_the_second_run_computes_nothing_and_says_so(cli, copied):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*.json") if path.name != ".index.json"}
    result = cli("run", *SMALL)
    assert result.code == EXIT_DONE
    assert "Nothing to compute: 6 cells, all done." in result.err
    assert "zero_shot" in result.out and "worst" in result.out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_same_seed_gives_the_same_samples_in_any_number_of_processes(cli, copied):
    assert cli("run", *but("--results", "again", "--jobs", "2", "--methods", "apd")).code == EXIT_DONE
    again, first = Store("again"), Store(copied)
    assert len(again.statuses()) == 4
    for cell_id in again.statuses():
        assert first.outcomes(cell_id).to_bytes() == again.outcomes(cell_id).to_bytes()


def test_a_damaged_record_is_named_kept_and_measured_again(cli, copied):
    path = next(copied.glob("cells/*/*.json"))
    path.write_text(path.read_text()[:99])
    shown = cli("show", path.stem)
    assert shown.code == EXIT_USAGE and path.name in shown.err and shown.err.count("\n") == 1
    result = cli("run", *SMALL)
    assert result.code == EXIT_DONE
    assert f"{path.name} is damaged" in result.err and "[1/1]" in result.err
    assert len(path.with_name(f"{path.name}.damaged").read_text()) == 99
    assert cli("run", *SMALL).err.startswith("Nothing to compute")


def test_show_prints_the_record_the_samples_and_the_command(cli, copied):
    cell_id = next(copied.glob("cells/*/*.json")).stem
    assert "robust_accuracy" in cli("show", cell_id[:8]).out
    assert json.loads(cli("show", cell_id, "--json").out)["id"] == cell_id
    lines = cli("show", cell_id, "--samples").out.splitlines()
    assert lines[0].startswith("sample_id,label,") and len(lines) == 7
    command = cli("show", cell_id, "--as-command")
    assert command.err == ""
    words = shlex.split(command.out)
    planned = cli("plan", *(word for word in words[2:] if word != "--force"), "--json")
    assert cell_id in [cell["id"] for cell in json.loads(planned.out)["cells"]]


def test_the_command_of_a_cell_repeats_it(cli, copied):
    hard = ("--attacks", "autoattack(members=['apgd-ce', 'fab-t'], iterations=5)", "--methods", "advtp", "--shard", "3")
    assert cli("run", *but(*hard, "--batch-size", "2")).code == EXIT_DONE
    store = Store(copied)
    chosen = [record for record in store.records() if record.cell.fit.method.name == "advtp"]
    assert len(chosen) == 3
    for record in chosen:
        program, *words = shlex.split(cli("show", record.id, "--as-command").out)
        assert program == "apd-bench"
        assert cli(*words, "--results", "again", "--jobs", "1", "--device", "cpu").code == EXIT_DONE
        again = Store("again").record(record.id)
        assert (again.metrics, again.diagnostics, again.suspect) == (record.metrics, record.diagnostics, record.suspect)
        assert again.effective == record.effective
        assert Store("again").outcomes(record.id).to_bytes() == store.outcomes(record.id).to_bytes()
    assert len(Store("again").statuses()) == 3


def test_failed_and_missing_and_force_choose_what_they_say(cli, copied, monkeypatch):
    def stamps():
        return {row["cell"]: (copied / f"cells/{row['cell'][:2]}/{row['cell']}.json").read_text() for row in rows()}

    def rows():
        return list(json.loads(cli("list", "cells", "--json").out))

    def broken(*arguments, **options):
        raise FloatingPointError("not a number")

    words = but("--methods", "advtp", "--attacks", "pgd(steps=3),cw(steps=3),fgsm")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "evaluate_samples", broken)
        assert cli("run", *words).code == EXIT_CELLS_FAILED
    before = stamps()
    assert len(before) == 8 and "Nothing to compute" in cli("run", *words, "--missing").err
    assert stamps() == before
    assert "2 to measure" in cli("run", *words, "--failed").err
    after = stamps()
    assert sum(after[cell] != before[cell] for cell in before) == 2
    assert {row["status"] for row in rows()} == {"success"}
    assert "6 to measure" in cli("run", *words, "--force").err
    assert sum(stamps()[cell] != after[cell] for cell in after) == 6


@pytest.mark.parametrize("name", ["apd", "pgd", "fashion", "tiny-clean", "embedded"])
def test_show_prints_registry_entries(cli, name):
    assert name in cli("show", name).out
    assert json.loads(cli("show", name, "--json").out)["entry"] in ("method", "attack", "dataset", "backbone", "suite")


def test_fits_are_listed_and_shown_with_the_cells_that_were_measured_with_them(cli, copied):
    rows = json.loads(cli("list", "fits", "--json").out)
    assert {row["method"] for row in rows} == {"apd", "advtp", "zero_shot"}
    row = next(row for row in rows if row["method"] == "apd")
    shown, card = cli("show", row["fit"][:8]).out, json.loads(cli("show", row["fit"], "--json").out)
    cells = [record.id for record in Store(copied).records() if record.cell.fit.id == row["fit"]]
    assert f"cells: {', '.join(cells)}" in shown and "learner: " in shown and len(cells) == 2
    assert card["num_parameters"] == row["num_parameters"] > 0
    wrong = cli("show", row["fit"], "--samples")
    assert wrong.code == EXIT_USAGE and "is a fit" in wrong.err


def test_every_option_of_an_attack_has_a_unit(cli):
    for entry in ATTACKS:
        assert set(entry.defaults) <= UNITS.keys() or entry.open_options, entry.name
    assert "length of the first step, as a share of eps" in cli("show", "pgd").out


def test_list_prints_what_there_is(cli, copied):
    assert "methods" in cli("list").out
    assert cli("list", "methods", "ap*").out.splitlines()[1].startswith("apd")
    assert cli("list", "dataset").out == cli("list", "datasets").out
    assert len(cli("list", "cells").out.splitlines()) == 7
    assert cli("list", "cells", "--status", "error").err == "nothing there\n"
    assert {row["name"] for row in json.loads(cli("list", "suites", "--json").out)} >= {"embedded", "ci", "blank"}


def test_plan_and_dry_run_write_nothing(cli, tmp_path):
    for words in (("plan", *SMALL), ("run", *SMALL, "--dry-run")):
        result = cli(*words)
        assert result.code == EXIT_DONE
        assert result.out.count("to do") == 6
        assert "6 cells: 0 need nothing, 6 to measure; 0 impossible. 2 of 2 fits to train." in result.err
    assert list(tmp_path.iterdir()) == []


def test_plan_counts_what_is_done_and_cached_only_computes_nothing(cli, copied):
    data = json.loads(cli("plan", *SMALL, "--seeds", "1,2", "--json").out)
    assert len(data["to_do"]) == 4 and len(data["cells"]) == 10 and len(data["fits_to_train"]) == 2
    assert [cell["status"] for cell in data["cells"]].count("success") == 6
    result = cli("run", *SMALL, "--seeds", "1,2", "--cached-only")
    assert result.code == EXIT_DONE
    assert "6 done, 4 left out by the options" in result.err
    assert Path("leaderboards/embedded.md").is_file()


def test_fit_trains_and_run_goes_on_from_there(cli):
    words = [word if word != "apd,apt" else "apd" for word in SMALL]
    fitted = cli("fit", *words, "--no-reference")
    assert fitted.code == EXIT_DONE
    folder = Path(fitted.out.split("\t")[0])
    assert (folder / "card.json").is_file()
    assert "Nothing to compute" in cli("fit", *words, "--no-reference").err
    assert "0 fits to train (1 reused)" in cli("run", *words, "--no-reference").err


def test_display_json_is_only_json_on_standard_output(cli):
    result = cli("run", *but("--methods", "zero_shot", "--display", "json"))
    events = [json.loads(line)["event"] for line in result.out.splitlines()]
    assert events[0] == "start" and events[-1] == "finish" and "progress" in events


def test_a_file_in_place_of_the_results_folder_is_one_line(cli, tmp_path):
    (tmp_path / "results").write_text("")
    result = cli("run", *SMALL)
    assert result.code == EXIT_USAGE
    assert "Cannot write to results" in result.err and result.err.count("\n") == 1


def test_missing_data_is_exit_2_with_one_sentence_per_cause(cli):
    result = cli("run", *but("--datasets", "eurosat", "--methods", "zero_shot", "--data", "nowhere"))
    assert result.code == EXIT_USAGE
    errors = [line for line in result.err.splitlines() if line.startswith("apd-bench: error:")]
    assert len(errors) == 1 and "2 cells" in errors[0] and "eurosat" in errors[0].lower()
    assert "Traceback" not in result.err


def test_a_cell_that_fails_is_exit_1_and_the_others_are_there(cli, monkeypatch):
    real = stages.evaluate_samples

    def evaluate(model, test, attack, *rest, **options):
        if attack.name == "cw":
            raise FloatingPointError("not a number")
        return real(model, test, attack, *rest, **options)

    monkeypatch.setattr(stages, "evaluate_samples", evaluate)
    result = cli("run", *but("--methods", "zero_shot"))
    assert result.code == EXIT_CELLS_FAILED
    assert "apd-bench: error: 1 cell: FloatingPointError: not a number" in result.err
    failed = cli("list", "cells", "--status", "error", "--json")
    (row,) = json.loads(failed.out)
    assert "FloatingPointError" in cli("show", row["cell"]).out
    monkeypatch.undo()


def test_memory_that_runs_out_halves_the_batch_and_is_recorded(cli, monkeypatch):
    real = stages.evaluate_samples

    def evaluate(*arguments, batch_size, **options):
        if batch_size > 3:
            raise torch.OutOfMemoryError("out of memory")
        return real(*arguments, batch_size=batch_size, **options)

    monkeypatch.setattr(stages, "evaluate_samples", evaluate)
    words = but("--methods", "zero_shot", "--batch-size", "6")
    assert cli("run", *words).code == EXIT_DONE
    for record in Store("results").records():
        assert record.effective["batch_size"] == 3 and record.effective["out_of_memory"] == 1


def test_two_runs_on_one_store_do_not_mix(cli, copied):
    with Store(copied).writer():
        refused = cli("run", *SMALL)
    assert refused.code == EXIT_USAGE
    assert "Another run is writing to results" in refused.err and "--wait" in refused.err
    assert cli("run", *SMALL, "--wait").err.startswith("Nothing to compute")


def test_python_has_the_same(cli, copied):
    records = apd_bench.load_records(copied)
    frame = records.to_pandas()
    assert len(frame) == len(records) == 6
    assert set(frame["method"]) == {"apd", "advtp", "zero_shot"} and frame["robust_accuracy"].between(0, 1).all()
    assert len(records.outcomes(records[0])) == 6
    again = apd_bench.run(
        "embedded", results=copied, methods="apd,apt", datasets="fashion", attacks=["pgd(steps=3)"], limit=6, shots=1,
        settings=["training.epochs=1"], device="cpu",
    )  # fmt: skip
    assert again.report is not None and again.report.to_do == 0 and len(again) == 3
    with pytest.raises(MissingPrerequisite, match="no records"):
        apd_bench.load_records("nowhere")
    written = {"methods": "zero_shot", "datasets": "fashion", "attacks": "none", "eps": "1/255, 2/255", "device": "cpu"}
    texts = apd_bench.run("embedded", results="texts", seeds="1,2", shots="4", limit="5", data="elsewhere", **written)
    assert {record.cell.limit for record in texts} == {5} and len(texts) == 2
    every = apd_bench.run("embedded", results="every", limit="all", strategy="cached", **written)
    assert not every and every.report is not None and every.report.planned == 2 and "APD_BENCH_DATA" not in os.environ


@pytest.mark.parametrize(("options", "said"), [
    ({"executor": "slurmm"}, "'slurmm'.* Available: local, ray, slurm"),
    ({"strategy": "forced"}, "Did you mean 'force'"),
    ({"seeds": "one"}, "seeds takes whole numbers, not 'one'. Write seeds=\"1,2,3\""),
    ({"seeds": 1.5}, "not '1.5'"),
    ({"seeds": True}, "not 'True'"),
    ({"seeds": -1}, "at least 0, not '-1'"),
    ({"shots": 0}, "at least 1, not '0'"),
    ({"limit": 0}, "limit takes a number of samples or 'all', not '0'"),
    ({"limit": "some"}, "not 'some'"),
    ({"jobs": 0}, "jobs takes a number of processes, not '0'"),
    ({"batch_size": -3}, "not '-3'"),
    ({"display": "cinema"}, "cinema"),
    ({"device": 3}, "device takes text, not '3'"),
    ({"settings": 3}, "settings takes a list"),
    ({"methds": "apd"}, "Did you mean 'methods'"),
    ({"eps": "3/255", "settings": ["norm=L2"]}, "usual L2 budget is 0.5"),
])  # fmt: skip
def test_what_python_cannot_mean_is_refused_before_anything_is_written(options, said, cli, tmp_path):
    with pytest.raises(UsageError, match=said):
        apd_bench.run(**options)
    assert list(tmp_path.iterdir()) == []


def contents(folder):
    """Every file of a store but the lock and the index."""
    ignored = (".lock", ".index.json")
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in ignored}


@pytest.mark.parametrize(("schema", "mend", "index"), [
    (99, "Update apd-bench", True), (99, "Update apd-bench", False), (2, "Measure anew", True),
])  # fmt: skip
def test_a_record_of_another_version_is_refused_and_nothing_is_changed(cli, copied, schema, mend, index):
    path = next(iter(sorted((copied / "cells").rglob("*.json"))))
    data = json.loads(path.read_text()) | {"schema": schema}
    path.write_text(sealed(data) if schema == 2 else json.dumps(data | {"surprise": 1}, indent=1, sort_keys=True))
    if not index:
        (copied / ".index.json").unlink()
    before = contents(copied)
    for words in (
        ("run", *SMALL), ("run", *SMALL, "--force"), ("run", *SMALL, "--dry-run"), ("plan", *SMALL),
        ("fit", *SMALL[:4]), ("submit",), ("examples",), ("plot", "results"),
        ("report",), ("report", "--out", "boards"), ("show", path.stem), ("show", path.stem, "--as-command"),
        ("list", "cells"), ("compare", "apd", "advtp"),
    ):  # fmt: skip
        result = cli(*words)
        assert result.code == EXIT_USAGE, words
        assert path.name in result.err and f"its schema is {schema}" in result.err and mend in result.err, words
        assert result.err.count("\n") == 1, result.err
        assert contents(copied) == before, words


def test_a_prompt_state_of_a_later_version_is_refused_and_nothing_is_changed(cli, copied):
    card = sorted(copied.glob("fits/*/card.json"))[0]
    card.write_text(json.dumps(json.loads(card.read_text()) | {"schema": 99}, indent=1, sort_keys=True))
    before = contents(copied)
    for words in (("run", *SMALL, "--force"), ("plan", *SMALL, "--force")):
        result = cli(*words)
        assert result.code == EXIT_USAGE, words
        assert "card.json was written by a later apd-bench: its schema is 99" in result.err, words
        assert contents(copied) == before, words
