"""One cell in, one result out: clean prediction, attack, audit, diagnostics. Robustness is measured here alone."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from apd_bench import attacks
from apd_bench.attacks.catalog import AttackEntry
from apd_bench.attacks.guard import untouched
from apd_bench.attacks.inputs import check_batch_size, check_classes, check_clean_logits, check_labels, check_pixels
from apd_bench.attacks.losses import margin
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.parse import all_options, entry_within
from apd_bench.attacks.projections import distance
from apd_bench.attacks.search import AttackResult
from apd_bench.core.errors import UsageError, first_line
from apd_bench.core.specs import AttackSpec, ThreatModel
from apd_bench.data.moving import moved
from apd_bench.defences.base import Defence, Verdict
from apd_bench.evaluation import defended, diagnostics
from apd_bench.evaluation.audit import FLIP_TOLERANCE, Audit, AuditError, audit
from apd_bench.evaluation.diagnostics import repeat_difference
from apd_bench.evaluation.low_precision import confirmed
from apd_bench.evaluation.progress import Account, OnProgress
from apd_bench.prompts.classifier import Classifier, matmul_precision
from apd_bench.records.checks import CHECKS, suspect
from apd_bench.records.measured import Effective, Measured, Timing, total
from apd_bench.records.outcomes import Outcomes

_SHARD_BYTES = 2**30  # pixels of a cell that are held at once for an attack on the whole cell


class Samples(Protocol):
    """Labelled images with ids, such as an ImageSplit."""

    @property
    def ids(self) -> Sequence[str]:
        """Stable, unique names."""
        ...

    @property
    def labels(self) -> Tensor:
        """Labels [N] int64."""
        ...

    def __len__(self) -> int: ...

    def pixels(self, indexes: Sequence[int]) -> Tensor:
        """The images at `indexes` as float32 [n, 3, H, W] in [0,1]."""
        ...


def evaluate_samples(
    classifier: Model,
    test: Samples,
    attack: AttackSpec,
    threat: ThreatModel,
    *,
    seed: int = 0,
    precision: str = "fp32",
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    checkpoint_dir: Path | None = None,
    on_progress: OnProgress | None = None,
    on_phase: Callable[[str], None] = lambda text: None,
    source_classifier: Model | None = None,
) -> Measured:
    """Attacks `classifier`, a model or a Defence, on `test` within `threat` and audits what comes back.

    `batch_size` bounds what the model sees at once (None: all samples). `on_progress(done, broken, passes)` is called
    several times a second and may raise to stop; no number ever falls, and samples are done within an attack already,
    as soon as they are broken or its last member is through with them. `on_phase(text)` is told what begins: a member
    of a suite ("2/4 apgd-t"), the diagnostics. The adversary differentiates through `source_classifier`
    where the threat's knowledge is not white_box. Raises UsageError for input that no attack can judge, AuditError for
    an attack that breaks its budget or contradicts itself.
    """
    began, place = time.perf_counter(), torch.device(device)
    size = check_batch_size(batch_size) or max(len(test), 1)
    judge, adversary = _meters(classifier, source_classifier, threat, size)
    judge.on_phase = adversary.on_phase = on_phase
    cell = _Cell(
        test=test, labels=check_labels(torch.as_tensor(test.labels), len(test), torch.device("cpu")),
        attack=attack, entry=entry_within(attack, threat), threat=threat, seed=seed, device=place,
        checkpoint=checkpoint_dir, judge=judge, adversary=adversary, account=Account(on_progress, judge, adversary),
    )  # fmt: skip
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    with matmul_precision(precision), untouched(judge.model), untouched(adversary.model):
        shards = _shards(cell, size)
        batches = moved(lambda rows: check_pixels(test.pixels(list(rows))), shards, place)
        parts = [_measure(cell, rows, x) for rows, x in zip(shards, batches, strict=True)]
        columns = _join([part.columns for part in parts])
        on_phase("diagnostics")
        facts = _diagnose(cell, parts, columns) if parts and threat.eps and cell.entry.name != "none" else {}
    outcomes = _outcomes(test, columns)
    timing = total([part.timing for part in parts])
    return Measured(
        metrics=outcomes.metrics(),
        outcomes=outcomes,
        diagnostics=facts,
        suspect=suspect(facts),
        timing={**timing, "seconds": time.perf_counter() - began, "peak_memory": _peak_memory(place)},
        effective=_effective(parts),
    )


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One evaluation: `judge` gives the verdicts, the attack differentiates through `adversary`."""

    test: Samples
    labels: Tensor
    attack: AttackSpec
    entry: AttackEntry
    threat: ThreatModel
    seed: int
    device: torch.device
    checkpoint: Path | None
    judge: Meter
    adversary: Meter
    account: Account

    @property
    def white_box(self) -> bool:
        """Whether the adversary knows the attacked model."""
        return self.threat.knowledge == "white_box"

    @property
    def defended(self) -> bool:
        """Whether a defence predicts; what an attack claims to have broken is then compared with no verdict."""
        return isinstance(self.judge.model, Verdict)


@dataclass(frozen=True)
class _Part:
    """What stays of a shard after attack and audit: numbers, and columns on the CPU; no image.

    `survivors` [3, S]: margins of the image, after 90 % of the steps, and at the end of those that the attack left.
    """

    columns: dict[str, Tensor]
    effective: Mapping[str, Any]
    timing: Timing
    diagnostics: Mapping[str, Any]
    flips: int
    survivors: Tensor | None


def _meters(classifier: Model, source: Model | None, threat: ThreatModel, batch_size: int) -> tuple[Meter, Meter]:
    """The judge and the adversary; one meter where they are the same model in the same precision."""
    if isinstance(classifier, Verdict):
        classifier = classifier.defence
    if isinstance(classifier, Defence):
        return defended.meters(classifier, threat, batch_size)
    exact = classifier.in_precision("fp32") if isinstance(classifier, Classifier) else classifier
    judge = Meter(exact, batch_size=batch_size)
    if threat.knowledge == "white_box":
        return judge, judge if exact is classifier else Meter(classifier, batch_size=batch_size)
    if source is None:
        raise UsageError(
            f"The threat '{threat.knowledge}' needs the model that makes the examples.",
            hint="Pass source_classifier=...",
        )
    return judge, Meter(source, batch_size=batch_size, persist=True)


def _shards(cell: _Cell, size: int) -> list[range]:
    """The rows that are on the device together: a batch, or many for attacks that want the whole cell."""
    samples = len(cell.test)
    if cell.entry.whole and samples:
        size = max(size, _SHARD_BYTES // (cell.test.pixels([0]).numel() * 4))
    return [range(low, min(low + size, samples)) for low in range(0, samples, size)]


def _measure(cell: _Cell, rows: range, images: Tensor) -> _Part:
    """Clean prediction, attack and audit of the samples `rows`."""
    labels = cell.labels[rows.start : rows.stop].to(cell.device)
    began = time.perf_counter()
    z, asked = _clean(cell.judge, images)
    check_clean_logits(z)
    check_classes(labels, z.shape[1])
    correct = (z.argmax(1) == labels).nonzero().squeeze(1)
    clean_seconds = time.perf_counter() - began
    cell.account.begin(len(rows) - len(correct))
    x, y = images[correct], labels[correct]
    result, timing = _attack(cell, x, y, [cell.test.ids[rows[row]] for row in correct.tolist()])
    claims = cell.white_box and not cell.defended
    seen = audit(cell.judge, result, x, y, cell.threat, kind=cell.entry.kind, claims=claims)
    repeated = CHECKS["repeat_difference"].limit  # two predictions of a model that draws nothing differ by rounding
    if seen.doubt > FLIP_TOLERANCE and repeat_difference(cell.judge.predict(x), cell.judge.predict(x)) <= repeated:
        raise AuditError(
            f"{seen.flips} verdicts of {cell.entry.name} are denied by a second prediction, "
            f"the clearest by {seen.doubt:.2g} of the largest logit."
        )
    columns = _columns(cell, z, labels, correct, seen, result)
    columns |= defended.columns(cell.judge, images, correct, seen.pixels, labels)
    if cell.entry.kind == "distance":
        far = distance(seen.pixels, x, "L2").masked_fill(seen.prediction == y, float("inf")).cpu().double()
        columns["distance"] = torch.zeros(len(labels)).double().index_copy(0, correct.cpu(), far)
    cell.account.finish(len(rows), int(seen.broken.sum()))
    timing |= {"clean_seconds": clean_seconds, "clean_forwards": asked}
    cost = {} if rows.start or not cell.defended else {"prediction": defended.prediction_cost(cell.judge, images)}
    return _Part(columns, {**result.effective, **cost}, timing, result.diagnostics, seen.flips, _survivors(result))


def _clean(judge: Meter, x: Tensor) -> tuple[Tensor, int]:
    """Logits of unchanged images, and how many were computed: a classifier keeps them for other attacks and budgets."""
    model = judge.model
    z, asked = model.clean_logits(x, judge.predict) if isinstance(model, Classifier) else (judge.predict(x), True)
    return z, len(x) * asked


def _attack(cell: _Cell, x: Tensor, y: Tensor, ids: list[str]) -> tuple[AttackResult, Timing]:
    """What the attack finds on correctly classified samples; what the judge denies is attacked again on the judge."""

    def on(meter: Meter, x: Tensor, y: Tensor, ids: list[str]) -> AttackResult:
        return attacks.run(cell.attack, meter, x, y, cell.threat, ids, cell.seed, checkpoint=cell.checkpoint)

    began, inside = time.perf_counter(), cell.adversary.seconds
    result = on(cell.adversary, x, y, ids)
    # A checkpoint does not say which precision broke a sample, so what it holds is judged again too.
    if cell.white_box and not cell.defended and (cell.adversary is not cell.judge or "resumed_at" in result.effective):
        result = confirmed(
            cell.judge, result, y, lambda rows: on(cell.judge, x[rows], y[rows], [ids[row] for row in rows.tolist()])
        )
    timing: Timing = {"model_seconds": cell.adversary.seconds - inside, "attack_seconds": time.perf_counter() - began}
    return result, {**timing, "forwards": result.forwards, "backwards": result.backwards}


def _columns(
    cell: _Cell, z: Tensor, labels: Tensor, correct: Tensor, seen: Audit, result: AttackResult
) -> dict[str, Tensor]:
    """Per-sample facts on the CPU; a sample that is misclassified by itself is broken, by nothing that was changed."""
    prediction, clean_margin = z.argmax(1), margin(z, labels)
    wrong = torch.ones_like(labels, dtype=torch.bool)
    attacked = {
        "adversarial_prediction": (prediction, seen.prediction), "broken": (wrong, seen.broken),
        "margin": (clean_margin, seen.margin), "norm": (torch.zeros_like(clean_margin), seen.norm),
    }  # fmt: skip
    if cell.white_box:  # else the columns are what the source says
        attacked |= {name: (wrong, found) for name, found in result.columns.items() if name.startswith("broken_")}
    columns = {"label": labels, "clean_prediction": prediction, "clean_margin": clean_margin}
    for name, (values, found) in attacked.items():
        columns[name] = values.index_copy(0, correct, found.to(values))
    return {name: column.cpu() for name, column in columns.items()}


def _survivors(result: AttackResult) -> Tensor | None:
    names = ("clean_margin", "late_margin", "margin")
    if not all(name in result.columns for name in names):
        return None
    return torch.stack([result.columns[name][~result.broken] for name in names]).cpu()


def _diagnose(cell: _Cell, parts: list[_Part], columns: dict[str, Tensor]) -> dict[str, Any]:
    """The masking checks. One that fails costs nothing that was measured: `not_run` says which and why."""
    correct = (columns["clean_prediction"] == columns["label"]).nonzero().squeeze(1)
    plain_loss = all_options(cell.attack).get("loss") == "ce" or cell.entry.plain_ce
    checks: dict[str, Callable[[], Mapping[str, Any]]] = {
        "margins": lambda: diagnostics.margins(-columns["clean_margin"][correct], plain_loss=plain_loss),
        "attack": lambda: _of_attack(cell, parts, max(len(correct), 1)),
        "black box": lambda: diagnostics.black_box(columns),
        "probes": lambda: _probe(cell, correct[: diagnostics.PROBES], columns["broken"], plain_loss=plain_loss),
    }
    facts: dict[str, Any] = {}
    failed: list[str] = []
    for name, check in checks.items():
        try:
            facts |= check()
        except Exception as error:
            if error is cell.account.stop:
                raise
            failed.append(f"{name}: {type(error).__name__}: {first_line(error)}")
    return facts | ({"not_run": failed} if failed else {})


def _of_attack(cell: _Cell, parts: list[_Part], attacked: int) -> dict[str, Any]:
    """What the attack itself has shown: flaws of its gradients, flips, warnings, whether it had converged."""
    backwards, flips = sum(part.timing["backwards"] for part in parts), sum(part.flips for part in parts)
    facts: dict[str, Any] = {"flips": flips / attacked if flips > 1 else 0.0}
    for part in parts:
        facts |= part.diagnostics.get("marks", {})
    for key in ("zero_gradients", "bad_gradients"):
        count = sum(int(part.diagnostics.get(key, 0)) for part in parts)
        facts[f"attack_{key}"] = count / max(backwards, 1)
    warned = [text for part in parts for text in part.diagnostics.get("warnings", {})]
    if warned:
        facts["warnings"] = list(dict.fromkeys(warned))[:20]
    survivors = [part.survivors for part in parts if part.survivors is not None]
    if survivors and cell.entry.kind == "ball":
        clean, late, end = torch.cat(survivors, dim=1)
        facts |= diagnostics.late_gain(clean, late, end, int(all_options(cell.attack).get("steps", 0)))
    return facts


def _probe(cell: _Cell, rows: Tensor, broken: Tensor, *, plain_loss: bool) -> dict[str, float]:
    """The probes on the correctly classified samples `rows`."""
    if not len(rows) or cell.defended:  # the attack that expects a defence brings its own
        return {}
    x = check_pixels(cell.test.pixels(rows.tolist())).to(cell.device)
    y, ids = cell.labels[rows].to(cell.device), [cell.test.ids[row] for row in rows.tolist()]
    before = (cell.judge.forwards, cell.judge.backwards)
    facts, by_step = diagnostics.probe(cell.judge, x, y, cell.threat, ids, seed=cell.seed)
    facts["probe_forwards"] = cell.judge.forwards - before[0]
    facts["probe_backwards"] = cell.judge.backwards - before[1]
    if plain_loss:
        facts["plain_loss_gap"] = 1 - facts["plain_ce_agreement"]
    if cell.entry.gradient and cell.entry.kind == "ball" and cell.white_box:
        facts |= diagnostics.against_fgsm(broken[rows], by_step.cpu())
    return facts


def _effective(parts: list[_Part]) -> Effective:
    """What ran, as the last shard says it; the samples that were attacked again are added up."""
    effective = {name: value for part in parts for name, value in part.effective.items()}
    again = sum(part.effective.get("attacked_again", 0) for part in parts)
    return cast("Effective", effective | ({"attacked_again": again} if again else {}))


def _peak_memory(device: torch.device) -> float:
    """The largest memory held so far, in bytes: by torch on a GPU, by the process elsewhere."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return 0.0
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _join(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The columns of all shards, one after the other; only those that every shard has."""
    names = [name for name in (parts[0] if parts else {}) if all(name in part for part in parts)]
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def _outcomes(test: Samples, columns: dict[str, Tensor]) -> Outcomes:
    """The columns of a cell with the names of its samples."""
    arrays = {name: column.numpy() for name, column in columns.items()}
    names = ("label", "clean_prediction", "adversarial_prediction", "broken")
    core = {name: arrays.pop(name, np.zeros(0, dtype=np.int32)) for name in names}
    return Outcomes(sample_id=np.asarray(list(test.ids), dtype=np.str_), **core, extra=arrays)
