"""One cell in, one result out: clean prediction, attack, audit, diagnostics. Robustness is measured here alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from apd_bench import attacks
from apd_bench.attacks.guard import untouched
from apd_bench.attacks.inputs import check_batch_size, check_classes, check_clean_logits, check_labels, check_pixels
from apd_bench.attacks.losses import margin
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.parse import all_options, entry_within
from apd_bench.attacks.projections import distance
from apd_bench.attacks.result import AttackResult
from apd_bench.core.errors import UsageError
from apd_bench.core.specs import ATTACK_SEED, AttackSpec, Cell, ThreatModel
from apd_bench.data.moving import moved
from apd_bench.evaluation import diagnostics
from apd_bench.evaluation.audit import FLIP_TOLERANCE, Audit, AuditError, audit
from apd_bench.evaluation.low_precision import confirmed
from apd_bench.evaluation.memory import peak_memory
from apd_bench.evaluation.progress import Account, OnProgress
from apd_bench.prompts.classifier import Classifier, matmul_precision
from apd_bench.records.record import Outcomes

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


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What one attack did to N samples.

    `metrics`: n, clean_accuracy, robust_accuracy (and median_distance for minimal-norm attacks). `outcomes`: per
    sample. `diagnostics`, `suspect`: masking checks and the reasons of those that fired. `timing`: seconds and image
    passes by stage. `effective`: what ran where it differs from what was asked.
    """

    metrics: Mapping[str, float]
    outcomes: Outcomes
    diagnostics: Mapping[str, Any]
    suspect: list[str]
    timing: Mapping[str, float]
    effective: Mapping[str, Any] = field(default_factory=dict)

    @property
    def clean_accuracy(self) -> float:
        """The share of samples classified correctly without an attack."""
        return float(self.metrics["clean_accuracy"])

    @property
    def robust_accuracy(self) -> float:
        """The share of samples classified correctly under the attack."""
        return float(self.metrics["robust_accuracy"])


def evaluate_cell(
    cell: Cell,
    classifier: Model,
    test: Samples,
    *,
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    checkpoint_dir: Path | None = None,
    on_progress: OnProgress | None = None,
    source_classifier: Model | None = None,
) -> CellResult:
    """The result of `cell` on the samples `test`, which are of the model's input size; see `evaluate_samples`."""
    return evaluate_samples(
        classifier,
        test,
        cell.attack,
        cell.threat,
        seed=ATTACK_SEED,
        precision=cell.precision,
        batch_size=batch_size,
        device=device,
        checkpoint_dir=checkpoint_dir,
        on_progress=on_progress,
        source_classifier=source_classifier,
    )


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
    source_classifier: Model | None = None,
) -> CellResult:
    """Attacks `classifier` on `test` within `threat` and audits what comes back.

    `batch_size` bounds what the model sees at once (None: all samples). `on_progress(done, broken, passes)` is called
    several times a second and may raise to stop; no number ever falls, and samples are done within an attack already,
    as soon as they are broken or its last member is through with them. The adversary differentiates through
    `source_classifier` where the threat's knowledge is not white_box. Raises UsageError for input that no attack can
    judge, AuditError for an attack that breaks its budget or contradicts itself.
    """
    evaluation = _Evaluation(
        classifier=classifier, source=source_classifier, test=test, attack=attack, threat=threat, seed=seed,
        batch_size=check_batch_size(batch_size) or max(len(test), 1), device=torch.device(device),
        checkpoint_dir=checkpoint_dir, on_progress=on_progress,
    )  # fmt: skip
    with matmul_precision(precision):
        return evaluation.run()


@dataclass
class _Part:
    """One shard after attack and audit; the tensors are on the CPU."""

    audit: Audit
    result: AttackResult
    columns: dict[str, Tensor]


class _Evaluation:
    def __init__(
        self, *, classifier: Model, source: Model | None, test: Samples, attack: AttackSpec, threat: ThreatModel,
        seed: int, batch_size: int, device: torch.device, checkpoint_dir: Path | None, on_progress: OnProgress | None,
    ) -> None:  # fmt: skip
        self.attack, self.entry = attack, entry_within(attack, threat)
        self.options = all_options(attack)
        self.plain_loss = self.options.get("loss") == "ce" or self.entry.plain_ce
        if threat.knowledge != "white_box" and source is None:
            raise UsageError(
                f"The threat '{threat.knowledge}' needs the model that makes the examples.",
                hint="Pass source_classifier=...",
            )
        self.test, self.threat, self.seed, self.device = test, threat, seed, device
        self.labels = check_labels(torch.as_tensor(test.labels), len(test), torch.device("cpu"))
        self.batch_size, self.checkpoint_dir = batch_size, checkpoint_dir
        judge = classifier.in_precision("fp32") if isinstance(classifier, Classifier) else classifier
        self.meter = Meter(judge, batch_size=batch_size)
        self.adversary = self.meter if judge is classifier else Meter(classifier, batch_size=batch_size)
        if threat.knowledge != "white_box" and source is not None:
            self.adversary = Meter(source, batch_size=batch_size, persist=True)
        self.clean_seconds = self.attack_seconds = self.model_seconds = 0.0
        self.forwards = self.backwards = self.again = self.clean_forwards = 0
        self.account = Account(on_progress, self.meter, self.adversary)

    def run(self) -> CellResult:
        began = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with untouched(self.meter.model), untouched(self.adversary.model):
            shards = self._shards()
            batches = moved(lambda rows: check_pixels(self.test.pixels(list(rows))), shards, self.device)
            parts = [self._shard(rows, x) for rows, x in zip(shards, batches, strict=True)]
            facts = self._diagnose(parts)
        return self._result(parts, facts, time.perf_counter() - began)

    def _shards(self) -> list[range]:
        size = self.batch_size
        if self.entry.whole and len(self.test):
            each = self.test.pixels([0]).numel() * 4
            size = max(size, _SHARD_BYTES // each)
        return [range(low, min(low + size, len(self.test))) for low in range(0, len(self.test), size)]

    def _shard(self, rows: range, x: Tensor) -> _Part:
        y = self.labels[rows.start : rows.stop].to(self.device)
        began = time.perf_counter()
        z = self._clean(x)
        check_clean_logits(z)
        check_classes(y, z.shape[1])
        correct = (z.argmax(1) == y).nonzero().squeeze(1)
        self.clean_seconds += time.perf_counter() - began
        self.account.begin(len(rows) - len(correct))
        result = self._attack(x[correct], y[correct], [self.test.ids[rows[row]] for row in correct.tolist()])
        white_box = self.threat.knowledge == "white_box"
        found = audit(
            self.meter,
            result,
            x[correct],
            y[correct],
            torch.zeros_like(correct, dtype=torch.bool),
            self.threat,
            kind=self.entry.kind,
            claims=white_box,
        )
        if found.doubt > FLIP_TOLERANCE and self._repeatable(x[correct]):
            raise AuditError(
                f"{found.flips} verdicts of {self.entry.name} are denied by a second prediction, "
                f"the clearest by {found.doubt:.2g} of the largest logit."
            )
        part = _Part(found, result, self._columns(x, y, z, correct, found, result))
        self.account.finish(len(rows), int(found.broken.sum()))
        return part

    def _clean(self, x: Tensor) -> Tensor:
        model, predict = self.meter.model, self.meter.predict  # a classifier keeps them for other attacks and budgets
        z, asked = model.clean_logits(x, predict) if isinstance(model, Classifier) else (predict(x), True)
        self.clean_forwards += len(x) * asked
        return z

    def _attack(self, x: Tensor, y: Tensor, ids: list[str]) -> AttackResult:
        def attacked(meter: Meter, x: Tensor, y: Tensor, ids: list[str]) -> AttackResult:
            place = self.checkpoint_dir
            return attacks.run(self.attack, meter, x, y, self.threat, ids, self.seed, checkpoint=place)

        began, inside = time.perf_counter(), self.adversary.seconds
        result = attacked(self.adversary, x, y, ids)
        # A checkpoint does not say which precision broke a sample, so what it holds is judged again too.
        rounded = self.adversary is not self.meter or "resumed_at" in result.effective
        if rounded and self.threat.knowledge == "white_box":

            def again(rows: Tensor) -> AttackResult:
                return attacked(self.meter, x[rows], y[rows], [ids[row] for row in rows.tolist()])

            result = confirmed(self.meter, result, y, again)
            self.again += result.effective.get("attacked_again", 0)
        self.model_seconds += self.adversary.seconds - inside
        self.attack_seconds += time.perf_counter() - began
        self.forwards += result.forwards
        self.backwards += result.backwards
        return result

    def _columns(
        self, x: Tensor, y: Tensor, z: Tensor, correct: Tensor, found: Audit, result: AttackResult
    ) -> dict[str, Tensor]:
        """Per-sample facts of a shard; a sample that is misclassified by itself is broken at distance 0."""

        def spread(values: Tensor, otherwise: Tensor) -> Tensor:
            full = otherwise.clone()
            full[correct] = values.to(full)
            return full.cpu()

        none, wrong = torch.zeros(len(y), device=y.device), torch.ones(len(y), dtype=torch.bool, device=y.device)
        clean_margin = margin(z, y) if len(y) else none
        columns = {
            "label": y.cpu(),
            "clean_prediction": z.argmax(1).cpu(),
            "adversarial_prediction": spread(found.prediction, z.argmax(1)),
            "broken": spread(found.broken, wrong),
            "clean_margin": clean_margin.cpu(),
            "margin": spread(found.margin, clean_margin),
            "norm": spread(found.norm, none),
        }
        for name, column in result.columns.items():
            if name.startswith("broken_") and self.threat.knowledge == "white_box":  # else what the source says
                columns[name] = spread(column, wrong)
        if self.entry.kind == "distance":
            far = distance(found.pixels, x[correct], "L2")
            columns["distance"] = spread(far.masked_fill(found.prediction == y[correct], float("inf")), none.double())
        return columns

    def _repeatable(self, x: Tensor) -> bool:
        first, second = self.meter.predict(x), self.meter.predict(x)
        scale = torch.linalg.vector_norm(first, dim=1, keepdim=True).clamp_min(1e-12)
        limit = diagnostics.CHECKS["repeat_difference"].limit
        return float(((first - second) / scale).abs().max()) <= limit

    def _diagnose(self, parts: list[_Part]) -> dict[str, Any]:
        if not parts or self.threat.eps == 0 or self.entry.name == "none":
            return {}
        joined = _join([part.columns for part in parts])
        correct = (joined["clean_prediction"] == joined["label"]).nonzero().squeeze(1)
        facts: dict[str, Any] = diagnostics.margins(-joined["clean_margin"][correct], plain_loss=self.plain_loss)
        for key in ("zero_gradients", "bad_gradients"):
            count = sum(int(part.result.diagnostics.get(key, 0)) for part in parts)
            facts[f"attack_{key}"] = count / max(self.backwards, 1)
        flips = sum(part.audit.flips for part in parts)
        facts["flips"] = flips / max(len(correct), 1) if flips > 1 else 0.0
        warned = [text for part in parts for text in part.result.diagnostics.get("warnings", {})]
        if warned:
            facts["warnings"] = list(dict.fromkeys(warned))[:20]
        facts |= diagnostics.black_box(joined)
        facts |= self._late_gain(parts)
        if len(correct):
            facts |= self._probe(correct[: diagnostics.PROBES], joined["broken"])
        return facts

    def _late_gain(self, parts: list[_Part]) -> dict[str, float]:
        names = ("clean_margin", "late_margin", "margin")
        stayed = [part.result for part in parts if all(name in part.result.columns for name in names)]
        if not stayed or self.entry.kind != "ball":
            return {}
        clean, late, end = (torch.cat([item.columns[name][~item.broken] for item in stayed]) for name in names)
        return diagnostics.late_gain(clean, late, end, int(self.options.get("steps", 0)))

    def _probe(self, rows: Tensor, broken: Tensor) -> dict[str, float]:
        x = check_pixels(self.test.pixels(rows.tolist())).to(self.device)
        ids = [self.test.ids[row] for row in rows.tolist()]
        before = (self.meter.forwards, self.meter.backwards)
        facts, by_step = diagnostics.probe(
            self.meter, x, self.labels[rows].to(self.device), self.threat, ids, seed=self.seed
        )
        facts["probe_forwards"] = self.meter.forwards - before[0]
        facts["probe_backwards"] = self.meter.backwards - before[1]
        if self.plain_loss:
            facts["plain_loss_gap"] = 1 - facts["plain_ce_agreement"]
        if self.entry.gradient and self.entry.kind == "ball" and self.threat.knowledge == "white_box":
            facts |= diagnostics.against_fgsm(broken[rows], by_step.cpu())
        return facts

    def _result(self, parts: list[_Part], facts: dict[str, Any], seconds: float) -> CellResult:
        columns = {name: column.numpy() for name, column in _join([part.columns for part in parts]).items()}
        n = len(self.test)
        empty = np.zeros(0, dtype=np.int32)
        core = {
            name: columns.pop(name, empty) for name in ("label", "clean_prediction", "adversarial_prediction", "broken")
        }
        outcomes = Outcomes(sample_id=np.asarray(list(self.test.ids), dtype=np.str_), **core, extra=columns)
        metrics: dict[str, float] = {
            "n": n,
            "clean_accuracy": float((core["clean_prediction"] == core["label"]).mean()) if n else 0.0,
            "robust_accuracy": 1 - float(core["broken"].mean()) if n else 0.0,
        }
        if n and self.entry.kind == "distance":
            metrics["median_distance"] = float(np.median(columns["distance"]))
            metrics["found"] = float(np.isfinite(columns["distance"]).mean())
        effective = {name: value for part in parts for name, value in part.result.effective.items()}
        if self.again:
            effective["attacked_again"] = self.again
        return CellResult(
            metrics=metrics,
            outcomes=outcomes,
            diagnostics=facts,
            suspect=diagnostics.suspect(facts),
            timing={
                "seconds": seconds,
                "clean_seconds": self.clean_seconds,
                "clean_forwards": self.clean_forwards,
                "attack_seconds": self.attack_seconds,
                "model_seconds": self.model_seconds,
                "forwards": self.forwards,
                "backwards": self.backwards,
                "peak_memory": peak_memory(self.device),
            },
            effective=effective,
        )


def _join(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The columns of all shards, one after the other; only those that every shard has."""
    names = [name for name in (parts[0] if parts else {}) if all(name in part for part in parts)]
    return {name: torch.cat([part[name] for part in parts]) for name in names}
