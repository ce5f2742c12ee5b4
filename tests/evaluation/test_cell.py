"""One cell in, one result out: on a linear model the number is known, and the rules of the table hold."""

import gc
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import Tensor, nn

from apd_bench.attacks import catalog
from apd_bench.attacks.checkpoint import Checkpoint
from apd_bench.attacks.parse import parse_attack
from apd_bench.core.errors import IncompatibleChoice, UsageError
from apd_bench.core.registry import ATTACKS
from apd_bench.core.specs import AttackSpec, ThreatModel
from apd_bench.evaluation import diagnostics
from apd_bench.evaluation.audit import AuditError
from apd_bench.evaluation.cell import evaluate_samples
from apd_bench.records.checks import CHECKS
from apd_bench.records.measured import Measured

LINF = ThreatModel(eps=2 / 255)


@dataclass(frozen=True)
class Split:
    ids: tuple[str, ...]
    labels: Tensor
    images: Tensor

    def __len__(self):
        return len(self.ids)

    def pixels(self, indexes):
        return self.images[torch.as_tensor(indexes, dtype=torch.int64)].float() / 255


@pytest.fixture(scope="module")
def case():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 8, 8), generator=generator, dtype=torch.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(54, 4))
    with torch.no_grad():
        net[3].weight.mul_(10)
        labels = net(images.float() / 255).argmax(1)
    labels[:4] = (labels[:4] + 1) % 4
    return net, Split(tuple(f"image-{i}" for i in range(20)), labels, images)


def measure(case, text="pgd", threat=LINF, model=None, **options):
    return evaluate_samples(model or case[0], case[1], parse_attack(text), threat, **options)


@pytest.mark.parametrize(
    "text", ["none", "pgd", "cw", "worst", "autoattack(iterations=5, queries=20)", "ddn(steps=20)"]
)
def test_metrics_follow_from_the_outcomes(text, case):
    net, split = case
    result = measure(case, text)
    seen = result.outcomes
    x = split.pixels(range(20))
    assert seen.sample_id.tolist() == list(split.ids) and seen.label.tolist() == split.labels.tolist()
    assert seen.clean_prediction.tolist() == net(x).argmax(1).tolist()
    assert result.metrics["n"] == 20 and result.clean_accuracy == 0.8
    assert result.robust_accuracy == 1 - seen.broken.mean() <= result.clean_accuracy
    assert seen.broken[:4].all() and (seen.adversarial_prediction[:4] == seen.clean_prediction[:4]).all()
    if text.startswith("ddn"):
        far = seen.extra["distance"]
        assert (far[:4] == 0).all() and (far[4:] > 0).all()
        assert result.metrics["median_distance"] == sorted(far.tolist())[9] / 2 + sorted(far.tolist())[10] / 2
    else:
        assert "median_distance" not in result.metrics
        assert (seen.extra["norm"] <= LINF.eps + 1e-6).all()
        assert ((seen.adversarial_prediction != seen.label) == seen.broken).all()


@pytest.mark.parametrize("text", ["pgd", "worst"])
def test_no_budget_is_clean_accuracy_and_more_never_helps(text, case):
    accuracies = [measure(case, text, ThreatModel(eps=eps / 255)).robust_accuracy for eps in (0, 1, 4, 16, 64)]
    assert accuracies[0] == 0.8
    assert accuracies == sorted(accuracies, reverse=True) and accuracies[-1] == 0


def test_the_stages_are_timed_and_counted(case):
    calls = []

    def model(x):
        calls.append(len(x))
        return case[0](x)

    result = measure(case, "pgd", model=model)
    timing = result.timing
    assert 0 < timing["model_seconds"] <= timing["attack_seconds"] <= timing["seconds"]
    assert timing["clean_forwards"] == 20 and timing["backwards"] > 0 and timing["peak_memory"] > 1e6
    probes = result.diagnostics["probe_forwards"]
    assert sum(calls) == 20 + timing["forwards"] + 16 + probes  # clean, attack, audit of 16 correct ones, probes


def test_columns_of_members_are_those_of_the_attacked_model(case):
    result = measure(case, "autoattack(iterations=5, queries=20)", batch_size=7)
    columns = [result.outcomes.extra[f"broken_{name}"] for name in ("apgd-ce", "apgd-t", "fab-t", "square")]
    assert all(column[:4].all() for column in columns)
    assert (columns[-1] == result.outcomes.broken).all()
    assert result.effective["targets"] == 3
    threat = ThreatModel(eps=8 / 255, knowledge="transfer", source="other")
    moved = measure(case, "autoattack(iterations=5, queries=20)", threat, source_classifier=case[0])
    assert not [name for name in moved.outcomes.extra if name.startswith("broken_")]
    assert "black_box_gain" not in moved.diagnostics


def test_what_a_checkpoint_of_another_arithmetic_claims_is_attacked_again(case, tmp_path, monkeypatch):
    whole = measure(case, "worst(steps=6)")
    standing = int((~whole.outcomes.broken).sum())
    assert standing
    real = Checkpoint._restore

    def claims(self, saved):
        real(self, saved)
        self.search.broken[:] = True  # as an adversary that rounds differently may have seen it

    def stop(done, broken, passes):
        if passes > 0.8 * (whole.timing["forwards"] + whole.timing["backwards"]):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("apd_bench.attacks.meter._REPORT_EVERY", 0.0)
        measure(case, "worst(steps=6)", checkpoint_dir=tmp_path, on_progress=stop)
    monkeypatch.setattr(Checkpoint, "_restore", claims)
    resumed = measure(case, "worst(steps=6)", checkpoint_dir=tmp_path)
    assert resumed.effective["resumed_at"] >= 1 and resumed.effective["attacked_again"] >= standing
    assert resumed.outcomes.broken.tolist() == whole.outcomes.broken.tolist()


@pytest.mark.parametrize(
    "text", ["autoattack(iterations=5, queries=20)", "autoattack.ce-t(iterations=5)", "worst(steps=4)", "worst.fast"]
)
@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_suite_tells_who_is_settled_while_it_runs(text, batch_size, case, monkeypatch):
    monkeypatch.setattr("apd_bench.attacks.meter._REPORT_EVERY", 0.0)
    told = []
    phases = []
    watch = {"on_progress": lambda *numbers: told.append(numbers), "on_phase": phases.append}
    result = measure(case, text, batch_size=batch_size, **watch)
    members = result.effective["members"]
    assert phases == [f"{place + 1}/{len(members)} {name}" for place, name in enumerate(members)] + ["diagnostics"]
    done, broken, passes = zip(*told, strict=True)
    for numbers in (done, broken, passes):
        assert list(numbers) == sorted(numbers)
    assert told[-1][:2] == (20, result.outcomes.broken.sum())
    assert all(lost <= settled for settled, lost, _ in told)
    under_way = {numbers[:2] for numbers in told[:-1]}
    assert (4, 4) in under_way  # those that are misclassified by themselves
    assert len({lost for _, lost in under_way}) > 2  # what breaks shows at once
    if batch_size:  # so does what the last member could not break, before the others have had their turn
        assert any(lost < settled < 20 for settled, lost in under_way)


def test_what_another_model_says_is_not_counted_before_the_audit(case, monkeypatch):
    monkeypatch.setattr("apd_bench.attacks.meter._REPORT_EVERY", 0.0)
    told, threat = [], ThreatModel(eps=8 / 255, knowledge="transfer", source="other")
    watch = {"on_progress": lambda *numbers: told.append(numbers)}
    result = measure(case, "worst", threat, source_classifier=case[0], batch_size=3, **watch)
    assert {broken for done, broken, _ in told if done < 20} == {0, 4}
    assert told[-1][:2] == (20, result.outcomes.broken.sum())


def test_the_adversary_of_a_transfer_sees_the_source_alone(case):
    threat = ThreatModel(eps=8 / 255, knowledge="transfer", source="other")
    with pytest.raises(UsageError, match="source_classifier"):
        measure(case, "pgd", threat)
    gradients = []

    def target(x):
        gradients.append(x.requires_grad)
        return case[0](x)

    itself = measure(case, "pgd", threat, source_classifier=case[0])
    white = measure(case, "pgd", ThreatModel(eps=8 / 255))
    assert itself.robust_accuracy <= white.robust_accuracy + 0.05  # it does not stop at the boundary
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    weak = measure(case, "pgd", threat, model=target, source_classifier=other)
    assert weak.robust_accuracy > white.robust_accuracy
    assert weak.timing["backwards"] == 40 * 16
    assert "attack_above_fgsm" not in weak.diagnostics


def test_an_unknown_norm_is_refused(case, monkeypatch):
    monkeypatch.setitem(ATTACKS._entries, "fgsm", replace(ATTACKS.get("fgsm"), norms=("Linf",)))
    with pytest.raises(IncompatibleChoice, match="fgsm does not know the norm L2"):
        measure(case, "fgsm", ThreatModel(eps=1.0, norm="L2"))


@pytest.mark.parametrize("fault", ["budget", "claim"])
def test_an_attack_that_cheats_makes_no_number(fault, case, monkeypatch):
    def cheat(search, **options):
        search.broken[:] = True
        if fault == "budget":
            search.best = (search.best + 0.1).clamp(0, 1)

    monkeypatch.setattr("apd_bench.attacks.resolve", lambda target, kind: cheat)
    with pytest.raises(AuditError, match="exceeded" if fault == "budget" else "denied by a second prediction"):
        measure(case)


def test_nothing_to_measure_and_nothing_correct(case):
    net, split = case
    empty = evaluate_samples(net, Split((), split.labels[:0], split.images[:0]), parse_attack("pgd"), LINF)
    assert len(empty.outcomes) == 0 and empty.metrics["n"] == 0
    for text in ("pgd", "worst", "autoattack", "ddn"):
        lost = Split(split.ids, (net(split.pixels(range(20))).argmax(1) + 1) % 4, split.images)
        result = evaluate_samples(net, lost, parse_attack(text), LINF)
        assert result.robust_accuracy == result.clean_accuracy == 0 and result.timing["backwards"] == 0


@pytest.mark.parametrize("name", [entry.name for entry in catalog.builtin() if not entry.extra])
def test_the_model_never_sees_more_images_than_the_batch_size(name, case):
    sizes = set()

    def model(x):
        sizes.add(len(x))
        return case[0](x)

    short = {"iterations": 2, "queries": 6, "steps": 3, "searches": 1}
    options = {key: value for key, value in short.items() if key in ATTACKS.get(name).defaults}
    result = evaluate_samples(model, case[1], AttackSpec(name=name, options=options), LINF, batch_size=3)
    assert max(sizes) == 3 and "not_run" not in result.diagnostics
    assert result.diagnostics.get("probes", 16) == 16


def test_no_image_is_held_to_the_end_of_a_cell(case):
    def alive():
        gc.collect()
        images = [item for item in gc.get_objects() if type(item) is Tensor and item.shape[1:] == (3, 8, 8)]
        return sum(len(item) for item in images if item.is_floating_point())

    held, before = [], alive()

    class Watched(Split):
        def pixels(self, indexes):
            held.append(alive() - before)
            return super().pixels(indexes)

    split = Watched(*(getattr(case[1], item.name) for item in fields(Split)))
    measure((case[0], split), "pgd(steps=3)", batch_size=2)
    assert len(held) == 11 and max(held) <= 4  # ten batches and the probes: at most the batch before is there


def test_a_check_that_fails_costs_no_finished_attack(case, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    whole = measure(case, "worst")
    monkeypatch.setattr(diagnostics, "probe", full)
    result = measure(case, "worst")
    assert result.outcomes.to_bytes() == whole.outcomes.to_bytes() and result.metrics == whole.metrics
    assert result.diagnostics["not_run"] == ["probes: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."]
    assert result.suspect == (CHECKS["not_run"].reason,)
    assert result.diagnostics["margin_median"] == whole.diagnostics["margin_median"]
    assert Measured.merge([result]).suspect == result.suspect


def test_a_callback_may_stop_during_the_checks_too(case, monkeypatch):
    monkeypatch.setattr("apd_bench.attacks.meter._REPORT_EVERY", 0.0)

    told = []

    def stop(done, broken, passes):
        told.append(done)
        if told.count(20) > 1:  # the audit tells of the last sample, what follows are the checks
            raise TimeoutError

    with pytest.raises(TimeoutError):
        measure(case, "fgsm", on_progress=stop)
