"""The side-by-side attacks: both sides see the same samples and are judged alike, and what they cost is counted."""

import argparse
import json
import sys

import pytest
import torch
from torch import nn

from apd_bench.attacks import libraries
from apd_bench.attacks.losses import ce
from apd_bench.backbones.load import load
from apd_bench.bench import attack_tables, attacks, usual_attacks
from apd_bench.bench.memory import peak
from apd_bench.cli import bench
from apd_bench.errors import UnknownName, UsageError
from apd_bench.methods.toy import toy_backbone
from apd_bench.registry import BACKBONES

EPS = 3 / 255


@pytest.fixture(scope="module")
def case():
    return attacks.embedded_case(load(BACKBONES.get("tiny-clean"), "cpu"), EPS, ["animals", "food"], 3)


@pytest.fixture(scope="module")
def pairs(case):
    return {pair.attack: pair for pair in attacks.compare(case, steps=4, repeats=2, suites=())}


def test_both_sides_are_judged_on_the_same_samples(case, pairs):
    assert list(pairs) == ["pgd-4, nobody leaves", "pgd-4", "cw-4"]
    ids = tuple(name for part in case.parts for name in part.ids)
    assert len(ids) == len(set(ids)) == 6
    for pair in pairs.values():
        assert pair.ids == ids and len(pair.usual.broken) == len(pair.ours.broken) == 6
        assert pair.ours.robust <= pair.clean and pair.usual.robust <= pair.clean
        assert len(pair.usual.seconds) == len(pair.ours.seconds) == 2


def test_passes_are_those_of_the_two_loops(pairs):
    held = pairs["pgd-4, nobody leaves"]
    assert (held.usual.forwards, held.usual.backwards) == (24, 24)
    assert (held.ours.forwards, held.ours.backwards) == (36, 24)  # the clean and the last prediction
    assert pairs["pgd-4"].ours.backwards <= 24
    assert held.excess is not None and held.excess > -0.9 and pairs["pgd-4"].excess is None


def test_a_point_outside_the_ball_breaks_nothing(case):
    part = case.parts[0]
    with torch.no_grad():
        wrong = part.classifier(part.pixels).argmax(1) != part.labels
    assert attacks._broken(part, 1 - part.pixels, EPS) == wrong.tolist()
    assert attacks._broken(part, part.pixels, EPS) == wrong.tolist()


def test_the_plain_loop_is_the_librarys():
    pytest.importorskip("torchattacks")
    torch.manual_seed(0)
    net, x, y = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 0])
    net.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = libraries.torchattacks_pgd(net, x, y, 0.1, steps=5, step=0.025)
        torch.manual_seed(1)
        ours = usual_attacks.plain(net, x, lambda z: ce(z, y).mean(), eps=0.1, steps=5, step=0.25)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_librarys_driver_leaves_trace_and_log_alone(case, monkeypatch):
    from pyautoattack import AutoAttack

    part = case.parts[0]
    seen = {}

    def short(self, x, y, *, batch_size):
        seen["targets"], seen["batch"] = self.fab.n_target_classes, batch_size
        sys.settrace(None)
        return x, y

    monkeypatch.setattr(AutoAttack, "run_standard_evaluation", short)
    before = sys.gettrace()

    def tracer(frame, event, argument):
        return None

    sys.settrace(tracer)
    try:
        libraries.autoattack_standard(part.classifier, part.pixels, part.labels, EPS, seed=0, batch_size=3)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert seen == {"targets": 9, "batch": 3}


def test_passes_of_a_library_are_counted_in_both_directions():
    model = usual_attacks.Counted(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    x = torch.rand(3, 3, 2, 2, requires_grad=True)
    z = model(x)
    for _ in range(2):
        torch.autograd.grad(z.sum(), x, retain_graph=True)
    with torch.no_grad():
        model(x[:1])
    assert (model.forwards, model.backwards) == (4, 6)


def test_random_weights_are_timed_and_not_ranked():
    case = attacks.random_case(toy_backbone(), EPS, 2, classes=5)
    (pair,) = attacks.compare(case, steps=2, repeats=1)
    assert pair.attack == "pgd-2, nobody leaves" and pair.excess is not None
    row = attack_tables.markdown([pair]).splitlines()[2]
    assert row.split(" | ")[4] == "-"
    assert attack_tables.as_json([pair], "cpu")["pairs"][0]["ours"]["robust_accuracy"] is None


def test_the_table_shows_both_sides(pairs):
    table = attack_tables.markdown(list(pairs.values())).splitlines()
    assert len({line.count("|") for line in table[:5]}) == 1
    assert "| tiny-clean | 3/255 | 6 | pgd-4 |" in table[3] and f"{pairs['pgd-4'].ratio:.2f}x" in table[3]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the high-water mark is Linux's")
def test_the_peak_is_what_was_held():
    with peak(torch.device("cpu")) as small:
        torch.ones(10)
    with peak(torch.device("cpu")) as large:
        torch.ones(40, 2**20)
    assert small.bytes is not None and large.bytes is not None
    assert small.bytes < 2**24 and 1.5e8 < large.bytes < 4e8


def parse(*words):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(["attacks", *words])


def test_the_verb_writes_the_table_and_every_verdict(monkeypatch, capsys, tmp_path):
    def short(model, x, y, eps, *, seed, batch_size):
        return usual_attacks.pgd(model, x, y, eps=eps, steps=3, step=0.25)

    monkeypatch.setattr(attacks, "autoattack_standard", short)
    files = [str(tmp_path / "new" / name) for name in ("a.json", "a.md")]
    words = ["--quick", "--limit", "2", "--datasets", "animals", "--steps", "2", "--repeats", "1"]
    assert bench.execute(parse(*words, "--json", files[0], "--markdown", files[1])) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "new" / "a.md").read_text("utf-8")
    assert "CPU" in table and "| worst / AutoAttack |" in table and "| worst.fast / AutoAttack |" in table
    data = json.loads((tmp_path / "new" / "a.json").read_text("utf-8"))
    assert data["part"] == "attacks" and "CPU" in data["machine"]["machine"] and len(data["pairs"]) == 5
    assert all(len(pair["ours"]["broken"]) == 2 for pair in data["pairs"])


def test_steps_and_batch_of_random_weights_are_those_that_were_asked_for(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("apd_bench.backbones.load.load", lambda *_: toy_backbone())
    monkeypatch.setattr(attacks, "random_case", lambda backbone, eps, batch: asked.append(batch))
    monkeypatch.setattr(attacks, "compare", lambda case, **options: asked.append(options) or iter(()))
    for words in ([], ["--steps", "7", "--batch", "2", "--repeats", "1"]):
        assert bench.execute(parse("--models", "ViT-B-32", *words)) == 0
    assert asked == [8, {"steps": 5, "repeats": 3}, 2, {"steps": 7, "repeats": 1}]


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["--limit", "0"], UsageError, "--limit has to be at least 1"),
        (["--models", "tiny-clear"], UnknownName, "tiny-clean"),
        (["--datasets", "animal"], UnknownName, "animals"),
        (["--attacks", "wurst"], UnknownName, "worst"),
        (["--attacks", "ddn"], UsageError, "no attack of ours within a ball"),
        (["--eps", "8"], UsageError, "8/255"),
        (["--eps", ","], UsageError, "--eps ',' names nothing"),
        (["--models", ","], UsageError, "--models ',' names nothing"),
        (["--datasets", ","], UsageError, "--datasets ',' names nothing"),
        (["--attacks", ","], UsageError, "see: apd-bench bench attacks --help"),
        (["--eps", "0"], UsageError, "leaves nothing"),
    ],
)
def test_a_mistake_costs_no_time(words, error, said, monkeypatch):
    monkeypatch.setattr("apd_bench.backbones.load.load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(error) as caught:
        bench.execute(parse(*words))
    assert said in str(caught.value)
