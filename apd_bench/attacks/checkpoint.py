"""The members of a suite in turn, and where it is, on disk: a killed one goes on after the last member and batch."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apd_bench.attacks.search import Search
from apd_bench.core.files import atomic_write
from apd_bench.core.identity import digest
from apd_bench.records.npz import arrays

_VERSION = 1
_SAME = 1e-3  # relative difference of clean logits up to which a model counts as the one of the checkpoint


class Checkpoint:
    """How far the suite `members` is in a search: kept in a file named after everything that shapes it.

    `member` is the index of the running one, `pending` the rows that it has still to attack (None before it has begun).
    Without a folder in the search nothing is kept.
    """

    def __init__(self, search: Search, members: Sequence[str], options: Mapping[str, Any]) -> None:
        self.search, self.members = search, tuple(members)
        self.member = 0
        self.pending: torch.Tensor | None = None
        self.path: Path | None = None
        if search.folder is not None:
            options = {"members": list(members), **options}
            key = [_VERSION, search.ids, search.labels.tolist(), search.threat, search.seed, options]
            pixels = hashlib.sha256(search.region.x0.cpu().numpy().tobytes()).hexdigest()
            self.path = Path(search.folder) / f"attack-{digest([*key, pixels])}.npz"

    def remaining(self) -> Iterator[str]:
        """The members that have still to run; after each, the column `broken_NAME` is set and the state saved."""
        self.load()
        while self.member < len(self.members):
            name, self.search.last = self.members[self.member], self.member == len(self.members) - 1
            self.search.meter.on_phase(f"{self.member + 1}/{len(self.members)} {name}")
            yield name
            self.search.columns[f"broken_{name}"] = self.search.broken.clone()
            self.member, self.pending = self.member + 1, None
            self.save()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def load(self) -> None:
        """Restores the search from disk; a file that cannot be trusted is passed over, and `effective` says so."""
        if self.path is None or not self.path.exists():
            return
        try:
            found = arrays(self.path.read_bytes())
            self._restore({name: torch.from_numpy(column) for name, column in found.items()})
        except Exception as error:
            self.search.effective["checkpoint"] = f"unreadable ({type(error).__name__}), begun anew"

    def save(self, pending: torch.Tensor | None = None) -> None:
        """Writes the state of the search with the rows still `pending`; a kill leaves the last complete file.

        Raises MissingPrerequisite when the disk is full or the folder cannot be written.
        """
        if self.path is None:
            return
        search, none = self.search, torch.zeros(0, dtype=torch.int64)
        state = {
            "logits": search.logits, "best": search.best, "margin": search.margin, "late": search.late_margin,
            "broken": search.broken, "passes": torch.tensor(search.spent()), "member": torch.tensor(self.member),
            "begun": torch.tensor(pending is not None), "pending": none if pending is None else pending,
            **{f"column.{name}": column for name, column in search.columns.items()},
        }  # fmt: skip
        buffer = io.BytesIO()
        np.savez(buffer, **{name: value.cpu().numpy() for name, value in state.items()})  # type: ignore[arg-type]
        atomic_write(self.path, buffer.getvalue(), durable=False)

    def _restore(self, saved: dict[str, torch.Tensor]) -> None:
        search = self.search
        device = search.logits.device
        saved = {name: value.to(device) for name, value in saved.items()}
        scale = float(search.logits.abs().max().clamp_min(1e-12))
        same = saved["logits"].shape == search.logits.shape
        if not same or float((saved["logits"] - search.logits).abs().max()) > _SAME * scale:
            search.effective["checkpoint"] = "of another model, begun anew"
            return
        member, passes = int(saved["member"]), tuple(saved["passes"].tolist())
        pending = saved["pending"] if bool(saved["begun"]) else None
        search.best, search.broken = saved["best"], saved["broken"]
        search.margin, search.late_margin = saved["margin"], saved["late"]
        search.columns |= {name[7:]: value for name, value in saved.items() if name.startswith("column.")}
        # What this start has done so far, the prediction of the clean images, is among what the earlier one counted.
        search.carry(tuple(saved - now for saved, now in zip(passes, search.spent(), strict=True)))
        search.effective["resumed_at"] = self.member = member
        self.pending = pending
