"""What happened to each sample of a cell, the file that keeps it, and the one function that makes accuracies of it."""

import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from apd_bench.core.errors import CorruptFile
from apd_bench.records.npz import Array, arrays

_SAME_FOR_MANY = frozenset({"sample_id", "label"})


class Metrics(TypedDict, total=False):
    """The numbers of a measured cell."""

    n: int  # samples
    clean_accuracy: float  # the share of samples that are classified correctly without an attack
    robust_accuracy: float  # the share of samples that no attack broke; those misclassified by themselves are broken
    median_distance: float | str  # minimal-norm attacks: the L2 distance of half of the samples; "inf" in JSON
    found: float  # minimal-norm attacks: the share of samples with an adversarial example at any distance


def accuracies(metrics: Metrics) -> str:
    """Metrics in a few words: `clean 61.0%, robust 35.5% (n=200)`; "no samples" where nothing was measured."""
    shares = (("clean", metrics.get("clean_accuracy")), ("robust", metrics.get("robust_accuracy")))
    said = ", ".join(f"{name} {100 * value:.1f}%" for name, value in shares if value is not None)
    return f"{said} (n={metrics['n']})" if metrics.get("n") else "no samples"


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What happened to each of N test samples, in the order of the test split.

    `sample_id` [N] text, `label`, `clean_prediction`, `adversarial_prediction` [N] int32, `broken` [N] bool: the
    sample is misclassified, by itself or under the attack. `extra` holds further columns of length N by name, such as
    `distance`, `margin`, or `broken_apgd-ce` for the parts of an ensemble.
    """

    sample_id: Array
    label: Array
    clean_prediction: Array
    adversarial_prediction: Array
    broken: Array
    extra: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cast = object.__setattr__
        cast(self, "sample_id", np.asarray(self.sample_id, dtype=np.str_))
        for name in ("label", "clean_prediction", "adversarial_prediction"):
            cast(self, name, np.asarray(getattr(self, name), dtype=np.int32))
        cast(self, "broken", np.asarray(self.broken, dtype=np.bool_))
        cast(self, "extra", {name: np.asarray(column) for name, column in self.extra.items()})
        lengths = {name: len(column) for name, column in self.columns()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of unequal length: {lengths}")

    def __len__(self) -> int:
        return len(self.sample_id)

    def __repr__(self) -> str:
        return f"Outcomes({len(self)} samples, {int(self.broken.sum())} broken)"

    def columns(self) -> Iterator[tuple[str, Array]]:
        """All columns with their names, the extra ones as `extra.NAME`."""
        for name in ("sample_id", "label", "clean_prediction", "adversarial_prediction", "broken"):
            yield name, getattr(self, name)
        for name, column in sorted(self.extra.items()):
            yield f"extra.{name}", column

    def to_bytes(self) -> bytes:
        """The outcomes as a compressed .npz file; the same outcomes give the same bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(self.columns()))  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(
        cls,
        content: bytes,
        *,
        source: str = "outcomes",
        shared: dict[bytes, Array] | None = None,
        extra: Collection[str] | None = None,
        samples: int | None = None,
    ) -> "Outcomes":
        """The outcomes in an .npz file; raises CorruptFile, naming `source`, when they cannot be read.

        With `shared`, equal columns of ids and labels are one read-only array, which it keeps for the next files. Of
        the further columns only those in `extra` are read (None: all). `samples` is the declared number of rows.
        """

        def unwanted(name: str) -> bool:
            return extra is not None and name.startswith("extra.") and name[6:] not in extra

        try:
            columns = arrays(content, _SAME_FOR_MANY, shared, unwanted, samples)
            further = {name[6:]: columns.pop(name) for name in list(columns) if name.startswith("extra.")}
            outcomes = cls(**columns, extra=further)
            if samples is not None and len(outcomes) != samples:
                raise ValueError(f"it holds {len(outcomes)} samples, not {samples}")
            return outcomes
        except ValueError as error:
            raise CorruptFile(f"{source} cannot be read: {error}.") from error
        except Exception as error:  # zipfile, zlib, struct, OSError, KeyError, TypeError: numpy documents none of them
            raise CorruptFile(f"{source} cannot be read: it is torn, or holds something else.") from error

    def metrics(self) -> Metrics:
        """The accuracies of these samples (0 of none) and, for minimal-norm attacks, how far their examples lie."""
        n = len(self)
        if not n:
            return {"n": 0, "clean_accuracy": 0.0, "robust_accuracy": 0.0}
        metrics: Metrics = {
            "n": n,
            "clean_accuracy": float((self.clean_prediction == self.label).mean()),
            "robust_accuracy": 1 - float(self.broken.mean()),
        }
        distance = self.extra.get("distance")
        if distance is not None:
            metrics["median_distance"] = float(np.median(distance))
            metrics["found"] = float(np.isfinite(distance).mean())
        return metrics

    @classmethod
    def merge(cls, parts: "list[Outcomes]", order: list[str]) -> "Outcomes":
        """The outcomes of disjoint sample shards as one, in the order of the sample ids `order`."""
        columns = [dict(part.columns()) for part in parts]
        joined = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
        place = {sample: row for row, sample in enumerate(joined["sample_id"].tolist())}
        if len(place) != len(joined["sample_id"]) or set(place) != set(order):
            raise ValueError("sample shards overlap or do not cover the cell")
        rows = np.asarray([place[sample] for sample in order], dtype=np.int64)
        joined = {name: column[rows] for name, column in joined.items()}
        extra = {name[6:]: joined.pop(name) for name in list(joined) if name.startswith("extra.")}
        return cls(**joined, extra=extra)
