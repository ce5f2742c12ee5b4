"""Where a long attack stands, on disk: a killed AutoAttack goes on after the last finished member and batch."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apd_bench.attacks.search import Search
from apd_bench.files import atomic_write
from apd_bench.identity import digest
from apd_bench.npz import arrays

_VERSION = 1
_SAME = 1e-3  # relative difference of clean logits up to which a model counts as the one of the checkpoint


@dataclass
class Progress:
    """How far a suite is: `member` is the index of the running one, `pending` its rows that are still to be attacked.

    `pending` is None before the member has begun.
    """

    member: int = 0
    pending: torch.Tensor | None = None


class Checkpoint:
    """The state of one search in `folder`, named after everything that shapes it; `folder` None keeps nothing."""

    def __init__(self, folder: Path | None, search: Search, options: Mapping[str, Any]) -> None:
        self.search = search
        self.path: Path | None = None
        if folder is not None:
            key = [_VERSION, search.ids, search.labels.tolist(), search.threat, search.seed, dict(options)]
            pixels = hashlib.sha256(search.region.x0.cpu().numpy().tobytes()).hexdigest()
            self.path = Path(folder) / f"attack-{digest([*key, pixels])}.npz"

    def load(self) -> Progress:
        """Restores the search from disk and tells how far it was; the beginning when there is nothing to trust."""
        if self.path is None or not self.path.exists():
            return Progress()
        try:
            found = arrays(self.path.read_bytes())
            return self._restore({name: torch.from_numpy(column) for name, column in found.items()})
        except Exception as error:
            self.search.effective["checkpoint"] = f"unreadable ({type(error).__name__}), begun anew"
            return Progress()

    def save(self, progress: Progress) -> None:
        """Writes the state of the search; a kill at any time leaves the last complete one.

        Raises MissingPrerequisite when the disk is full or the folder cannot be written.
        """
        if self.path is None:
            return
        search, none = self.search, torch.zeros(0, dtype=torch.int64)
        state = {
            "logits": search.logits, "best": search.best, "margin": search.margin, "late": search.late_margin,
            "broken": search.broken, "passes": torch.tensor(search.spent()), "member": torch.tensor(progress.member),
            "begun": torch.tensor(progress.pending is not None),
            "pending": none if progress.pending is None else progress.pending,
            **{f"column.{name}": column for name, column in search.columns.items()},
        }  # fmt: skip
        buffer = io.BytesIO()
        np.savez(buffer, **{name: value.cpu().numpy() for name, value in state.items()})  # type: ignore[arg-type]
        atomic_write(self.path, buffer.getvalue(), durable=False)

    def remove(self) -> None:
        """Deletes the state once the attack is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _restore(self, saved: dict[str, torch.Tensor]) -> Progress:
        search = self.search
        device = search.logits.device
        saved = {name: value.to(device) for name, value in saved.items()}
        scale = float(search.logits.abs().max().clamp_min(1e-12))
        same = saved["logits"].shape == search.logits.shape
        if not same or float((saved["logits"] - search.logits).abs().max()) > _SAME * scale:
            search.effective["checkpoint"] = "of another model, begun anew"
            return Progress()
        search.best, search.broken = saved["best"], saved["broken"]
        search.margin, search.late_margin = saved["margin"], saved["late"]
        search.columns |= {name[7:]: value for name, value in saved.items() if name.startswith("column.")}
        search.carry(tuple(saved["passes"].tolist()))
        search.effective["resumed_at"] = int(saved["member"])
        return Progress(int(saved["member"]), saved["pending"] if bool(saved["begun"]) else None)
