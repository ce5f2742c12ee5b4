"""What every part measures in the same form: two sides run in turn, their medians, the ratio, the limit. No torch.

On a CPU the seconds are those of the processor: what the work costs, whatever else the machine is doing meanwhile.
"""

import ctypes
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

HEADER = ("part", "what", "usual", "ours", "ratio", "limit", "ours above it", "also")
LEGEND = (
    "*Usual* is what the field does, *ours* what apd-bench does, on the same weights, samples and files in one run, "
    "in turn; medians with their range. *Limit* is work that nobody can avoid (the passes of the model alone, reading "
    "the files), *ours above it* the median over the repeats. Where two numbers stand in *also*, the usual side is "
    "first. Seconds on a CPU are those of the processor."
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: every repeat of both sides and of the limit (work that nobody can avoid), in `unit`.

    `usual` is empty where there is no other side; `facts` are further numbers, by name; `evidence` is not shown.
    """

    part: str
    what: str
    ours: tuple[float, ...]
    usual: tuple[float, ...] = ()
    limit: tuple[float, ...] = ()
    unit: str = "s"
    facts: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)

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
            began = clock(device)
            work()
            if repeat >= 0:
                seconds[name].append(clock(device) - began)
    return {name: tuple(values) for name, values in seconds.items()}


def clock(device: str) -> float:
    """Seconds of this process on a CPU; on CUDA those of the wall, when the device has done all that it was given."""
    if not device.startswith("cuda"):
        return time.process_time()
    import torch

    torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def peak(device: str) -> Iterator[list[float]]:
    """Inside: the work. After: the most memory it held above what was held before, in MiB; empty if none can tell."""
    found: list[float] = []
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found.append(round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1))
        return
    before = _reset_high_water_mark()
    yield found
    if before is not None:
        found.append(round(max(_memory("VmHWM") - before, 0) / 1024, 1))


def _reset_high_water_mark() -> int | None:
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else memory that torch has given back still counts as held
        Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    except (OSError, AttributeError, TypeError):  # there is no such mark outside Linux
        return None


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def machine(device: str = "cpu") -> dict[str, Any]:
    """The machine in words, and the versions that matter to its speed; asks torch only where it is loaded anyway."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, platform.processor())
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") and torch else "no GPU used"
    words = f"{os.cpu_count()}-core CPU" + (f" ({name})" if name else "") + f", {gpu}"
    return {"machine": words, "python": sys.version.split()[0], "torch": version("torch")} | (
        {"threads": torch.get_num_threads()} if torch else {}
    )


def document(part: str, rows: Sequence[Row], device: str = "cpu") -> dict[str, Any]:
    """The rows of a part as JSON."""
    plain = [asdict(row) | {"ratio": row.ratio, "above_limit": row.excess} for row in rows]
    return {"part": part, "machine": machine(device), "rows": plain}


def rows_of(data: Mapping[str, Any]) -> list[Row]:
    """The rows of a `document`."""
    names = ("part", "what", "unit", "facts", "evidence")
    return [
        Row(**{name: row[name] for name in names}, **{name: tuple(row[name]) for name in ("ours", "usual", "limit")})
        for row in data["rows"]
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table: medians, with their range where there are repeats."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    for row in rows:
        cells = (
            row.part,
            row.what,
            _spread(row.usual, row.unit),
            _spread(row.ours, row.unit),
            "-" if row.ratio is None else f"{row.ratio:.2f}x",
            _spread(row.limit, row.unit),
            "-" if row.excess is None else f"{100 * row.excess:+.1f} %",
            "; ".join(f"{name} {_short(value)}" for name, value in row.facts.items()) or "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(documents: Sequence[Mapping[str, Any]]) -> str:
    """The machines and the rows of several parts in one table, with the legend."""
    machines = sorted({data["machine"]["machine"] for data in documents})
    table = markdown([row for data in documents for row in rows_of(data)])
    return f"{'; '.join(machines)}\n\n{table}\n\n{LEGEND}\n"


def write(folder: Path, part: str, data: Mapping[str, Any]) -> None:
    """Writes a part's numbers and table, and `summary.md` anew from the numbers of all parts in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}.json").write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", "utf-8")
    (folder / f"{part}.md").write_text(page([data]), "utf-8")
    parts = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    (folder / "summary.md").write_text(page(parts), "utf-8")


def _spread(values: Sequence[float], unit: str) -> str:
    if not values:
        return "-"
    middle = f"{_short(statistics.median(values))} {unit}"
    return middle if len(values) == 1 else f"{middle} ({_short(min(values))} to {_short(max(values))})"


def _short(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.3g}"
