"""What every part measures in the same form: two sides run in turn, their medians, the ratio, the limit. No torch.

On a CPU the seconds are those of the processor: what the work costs, whatever else the machine is doing meanwhile.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HEADER = ("part", "what", "usual", "ours", "ratio", "limit", "ours above it", "also")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: every repeat of both sides and of the limit (work that nobody can avoid), in `unit`.

    `usual` is empty where there is no other side; `facts` are further numbers, by name.
    """

    part: str
    what: str
    ours: tuple[float, ...]
    usual: tuple[float, ...] = ()
    limit: tuple[float, ...] = ()
    unit: str = "s"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many of ours fit into the usual one, by the medians."""
        return statistics.median(self.usual) / max(statistics.median(self.ours), 1e-9) if self.usual else None

    @property
    def excess(self) -> float | None:
        """By which share ours lies above the limit; the median over the repeats, which were run side by side."""
        if not self.limit:
            return None
        return statistics.median(own / max(pure, 1e-9) for own, pure in zip(self.ours, self.limit, strict=True)) - 1


def in_turn(
    sides: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu", *, warm: bool = True
) -> dict[str, tuple[float, ...]]:
    """Seconds of every side, `repeats` times in turn; with `warm` after one run of each that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(-1 if warm else 0, repeats):
        for name, work in sides.items():
            began = _now(device)
            work()
            if repeat >= 0:
                seconds[name].append(_now(device) - began)
    return {name: tuple(values) for name, values in seconds.items()}


def _now(device: str) -> float:
    return wall(device) if device.startswith("cuda") else time.process_time()


def wall(device: str) -> float:
    """Seconds by the wall clock, when the device has done all that it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


def machine(device: str = "cpu") -> dict[str, Any]:
    """The machine in words, and the versions that matter to its speed; reads torch only where it is loaded anyway."""
    from importlib.metadata import version

    name = processor()
    words = f"{os.cpu_count()}-core CPU" + (f" ({name})" if name else "")
    torch = sys.modules.get("torch")
    facts: dict[str, Any] = {"python": sys.version.split()[0], "torch": version("torch")}
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
    if device.startswith("cuda") and torch is not None:
        words += f", {torch.cuda.get_device_name(device)}"
    else:
        words += ", no GPU used"
    return {"machine": words, **facts}


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name where the system tells one, else ""."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def document(part: str, rows: Sequence[Row], device: str = "cpu") -> dict[str, Any]:
    """The rows of a part as JSON."""
    return {
        "part": part,
        "machine": machine(device),
        "rows": [asdict(row) | {"ratio": row.ratio, "above_limit": row.excess} for row in rows],
    }


def row_of(data: Mapping[str, Any]) -> Row:
    """The row behind an entry of `document`."""
    lists = {name: tuple(data.get(name) or ()) for name in ("ours", "usual", "limit")}
    return Row(part=data["part"], what=data["what"], unit=data.get("unit", "s"), facts=data.get("facts", {}), **lists)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table: medians, with their range where there are repeats."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    for row in rows:
        cells = (
            row.part,
            row.what,
            spread(row.usual, row.unit),
            spread(row.ours, row.unit),
            "-" if row.ratio is None else f"{row.ratio:.1f}x",
            spread(row.limit, row.unit),
            "-" if row.excess is None else f"{100 * row.excess:+.1f} %",
            "; ".join(f"{name} {_short(value)}" for name, value in row.facts.items()) or "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], unit: str) -> str:
    """The median with the range."""
    if not values:
        return "-"
    middle = f"{_short(statistics.median(values))} {unit}"
    if len(values) == 1:
        return middle
    return f"{middle} ({_short(min(values))} to {_short(max(values))})"


def _short(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
