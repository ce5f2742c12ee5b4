"""The benchmarks measure what they say: the same work on both sides, judged alike, and nothing lost in the tables."""

import dataclasses
import json
import re
import sys

import pytest
import torch
from synthetic import outcomes
from torch import nn

from apd_bench.attacks.losses import ce
from apd_bench.backbones.load import load_backbone
from apd_bench.core.errors import MissingPrerequisite
from apd_bench.records.measured import Measured
from apd_bench.records.store import Store
from apd_bench.runner.report import choose
from apd_bench.training.toy import toy_backbone
from tests.benchmarks import attacks, images, memory, models, precision, startup, stores, suites, train, usual
from tests.benchmarks.__main__ import main
from tests.benchmarks.cuda import __main__ as cuda
from tests.benchmarks.table import Row, document, in_turn, markdown, peak, rows_of, write

EPS = 3 / 255
ROW = Row(part="p", what="w", usual=(4.0, 6.0, 90.0), ours=(1.0, 2.0, 3.0), limit=(1.0, 1.0, 2.0), facts={"n": 7})


@pytest.fixture(scope="module")
def backbone():
    return toy_backbone()


@pytest.fixture(scope="module")
def parts():
    return list(models.embedded_samples(load_backbone("tiny-clean", "cpu"), ["animals", "food"], 3))


def test_ratios_are_of_medians_of_sides_that_run_in_turn():
    assert ROW.ratio == pytest.approx(3)
    assert ROW.excess == pytest.approx(0.5)
    assert "| 6 s (4 to 90) | 2 s (1 to 3) | 3.00x | 1 s (1 to 2) | +50.0 % | n 7 |" in markdown([ROW])
    order = []
    seconds = in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert "".join(order) == "ababab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_a_part_is_written_and_joins_the_summary(tmp_path):
    for part in "pq":
        write(tmp_path, part, document(part, [dataclasses.replace(ROW, part=part)]))
    assert rows_of(json.loads((tmp_path / "p.json").read_text())) == [ROW]
    assert markdown([ROW]).splitlines()[-1] in (tmp_path / "p.md").read_text()
    summary = (tmp_path / "summary.md").read_text()
    assert "| p | w |" in summary and "| q | w |" in summary and "CPU" in summary


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the high-water mark is Linux's")
def test_the_peak_is_what_was_held():
    with peak("cpu") as small:
        torch.ones(10)
    with peak("cpu") as large:
        torch.ones(40, 2**20)
    assert small[0] < 16 and 150 < large[0] < 400


def test_both_sides_of_a_pair_are_judged_on_the_same_samples(parts):
    ids = [name for part in parts for name in part.ids]
    held, pgd, cw = attacks.pairs("tiny-clean", parts, EPS, steps=4, repeats=2, suites=())
    assert [row.what.partition(" on")[0] for row in (held, pgd, cw)] == ["pgd-4, nobody leaves", "pgd-4", "cw-4"]
    for row in (held, pgd, cw):
        assert row.evidence["ids"] == ids and len(row.usual) == len(row.ours) == 2
        assert {len(broken) for broken in row.evidence["broken"].values()} == {6}
    assert held.facts["forwards per image"] == "4.0 / 6.0"  # ours predicts the clean and the last point too
    assert held.facts["backwards per image"] == "4.0 / 4.0"
    assert held.excess is not None and pgd.excess is None


def test_a_point_outside_the_ball_breaks_nothing(parts):
    part = parts[0]
    with torch.no_grad():
        wrong = (part.classifier(part.pixels).argmax(1) != part.labels).tolist()
    assert attacks.verdicts(part, 1 - part.pixels, EPS) == wrong == attacks.verdicts(part, part.pixels, EPS)


def test_random_weights_are_timed_without_an_accuracy_and_nobody_leaves_the_loop(backbone):
    (row,) = attacks.pairs("toy", [models.made_up(backbone, 2)], EPS, steps=2, repeats=1, trained=False)
    assert row.excess is not None and "robust accuracy, %" not in row.facts
    row = attacks.loop_row(backbone, batch=4, steps=3, repeats=2)
    assert row.facts == {"left the active set": 0, "passes per image": 7}
    assert len(row.ours) == len(row.limit) == 2


def test_the_plain_loop_is_the_librarys():
    pytest.importorskip("torchattacks")
    net, x, y = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 0])
    net.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = usual.pgd(net, x, y, eps=0.1, steps=5, step=0.025)
        torch.manual_seed(1)
        ours = usual.plain(net, x, lambda z: ce(z, y).mean(), eps=0.1, steps=5, step=0.025)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_passes_of_a_library_are_counted_in_both_directions():
    model = usual.PassCounter(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    x = torch.rand(3, 3, 2, 2, requires_grad=True)
    z = model(x)
    for _ in range(2):
        torch.autograd.grad(z.sum(), x, retain_graph=True)
    with torch.no_grad():
        model(x[:1])
    assert (model.forwards, model.backwards) == (4, 6)


def test_both_training_steps_have_the_same_loss_and_ours_is_not_slower(backbone):
    row = train.train_row(backbone, 4, classes=50)
    assert float(row.facts["loss differs by"]) < 1e-4 and row.ratio > 1
    full, cut = map(int, row.facts["tokens"].split(" / "))
    assert cut < full == 77
    assert len(set(models.class_names(1000))) == 1000


def test_memory_is_measured_on_both_sides(backbone):
    rows = list(memory.memory_rows(backbone, classes=300, batch=2))
    assert [row.unit for row in rows] == ["MiB", "MiB"]
    assert all(len(row.usual) == len(row.ours) for row in rows)


def test_the_walk_and_the_index_agree_on_what_is_to_do(tmp_path):
    cells = stores.grid(60)
    assert len({cell.id for cell in cells.cells}) == 60
    stores.fill(Store(tmp_path), dataclasses.replace(cells, cells=cells.cells[:45]))
    todo = choose(cells.cells, Store(tmp_path).statuses(), "unfinished")
    assert [cell.id for cell in todo] == stores.walk(tmp_path, cells) and len(todo) == 15
    assert 0 < stores.read_files(tmp_path) < 2 * 45
    assert ["growth" in row.facts for row in stores.store_rows([20, 40])] == [False] * 3 + [True] * 3


def test_both_ways_of_reading_images_give_the_same_pixels():
    row = images.image_row(6, image_size=32, batch_size=4, repeats=1)
    assert row.facts["same pixels"] == "yes" and row.ratio is not None


def test_what_a_command_imports_is_seen():
    assert startup.imported(("-c", "import apd_bench")) == [] and "torch" in startup.imported(("-c", "import torch"))


def result(broken, **effective):
    seen = outcomes([True] * len(broken), [sign != "x" for sign in broken])
    return Measured(outcomes=seen, timing={"attack_seconds": 2.0}, effective=effective)


def test_verdicts_that_bf16_changes_are_counted_in_both_directions():
    row = precision.precision_row("pgd", result("xx.."), result("x.xx", attacked_again=3))
    assert row.facts == {
        "robust accuracy, %": "50.0 / 25.0", "verdicts changed": 3, "broken in one alone": "1 / 2",
        "attacked again in fp32": 3,
    }  # fmt: skip


def test_the_interval_holds_the_difference_and_narrows_with_samples():
    passes = dict.fromkeys(("forwards", "backwards", "seconds", "library_forwards", "library_backwards"), 0)
    few = suites.Verdicts(n=100, standing=42, library_standing=40, missed=3, gained=1, **passes)
    many = few
    for _ in range(99):
        many = many.plus(few)
    assert many.n == 10000 and many.difference == few.difference == 0.02
    assert many.interval == pytest.approx((0.0161, 0.0239), abs=2e-4)  # 0.02 +- 1.96 sqrt((0.04 - 0.02^2) / 10000)
    assert few.interval[0] < 0 < 0.02 < few.interval[1]


def test_a_store_without_verdicts_is_explained(tmp_path):
    with pytest.raises(MissingPrerequisite, match="no cell of standard AutoAttack"):
        suites.against_records(Store(tmp_path), suites.SUITES)


def test_the_command_prints_the_table_of_a_part_and_names_the_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "rows", lambda quick, device: iter([dataclasses.replace(ROW, facts={"q": quick})]))
    assert main(["train", "--quick", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (tmp_path / "train.md").read_text() and (tmp_path / "summary.md").is_file()
    assert rows_of(json.loads((tmp_path / "train.json").read_text()))[0].facts == {"q": True}
    with pytest.raises(SystemExit):
        main(["trains"])
    assert re.search("invalid choice: '?trains'?.*startup'?, '?store", capsys.readouterr().err)


def test_the_checks_of_a_gpu_run_without_one_and_a_wrong_gpu_is_told(tmp_path, monkeypatch, capsys):
    words = ["--device", "cpu", "--small", "--out", str(tmp_path), "--only"]
    assert cuda.main([*words, "fp32,gradients of CPU,evaluate,held per image"]) == 0
    checks = json.loads((tmp_path / "cuda" / "checks.json").read_text())["checks"]
    assert [one["state"] for one in checks] == ["PASS", "PASS", "PASS", "SKIP"]
    assert float(checks[0]["facts"]["product in fp32"]) < 2e-5
    assert "| fp32 is fp32 | PASS |" in (tmp_path / "cuda.md").read_text()
    assert "SKIP memory" in capsys.readouterr().out
    monkeypatch.setattr("tests.benchmarks.cuda.right.off", lambda one, two: 1e-2)
    assert cuda.main([*words, "fp32 is"]) == 1
    assert "reduced precision is on" in (tmp_path / "cuda.md").read_text()


def test_the_committed_audit_can_be_made_again():
    rows = list(suites.audit_rows(False, "cpu"))
    assert rows_of(json.loads((suites.BOARD.parent / "bench" / "audit.json").read_text())) == rows
    assert len(rows) == 14
