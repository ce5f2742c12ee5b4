"""What the attack benchmark prints: one row a pair, the usual side first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apd_bench.bench.attacks import Pair, Side
from apd_bench.bench.rows import machine
from apd_bench.specs import format_eps

HEADER = (
    "model", "eps", "images", "attack", "robust accuracy, %", "forwards / image", "backwards / image", "seconds",
    "ratio", "peak MiB", "above the limit",
)  # fmt: skip
LEGEND = (
    "Every cell gives the usual side first, then ours. *Robust accuracy* stands after the clean one; *forwards* and "
    "*backwards* are image passes over all images. *Seconds* (on a CPU those that the process was given, so that other "
    "work does not count) are medians with their range over interleaved repeats, one run where there is no range; "
    "*ratio* of the medians. *Peak* is the most memory held above that before the attack. *Above the limit* is what "
    "our PGD takes beyond the same passes with nothing in between, the median over the repeats. *Nobody leaves*: "
    "broken samples stay, so that both sides make the same passes."
)


def markdown(pairs: Sequence[Pair]) -> str:
    """The pairs as a table with its legend."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    lines += [f"| {' | '.join(_cells(pair))} |" for pair in pairs]
    return "\n".join([*lines, "", LEGEND])


def as_json(pairs: Sequence[Pair], device: str) -> dict[str, Any]:
    """The pairs in full: every repeat and every verdict, and the machine in words."""
    return {"part": "attacks", "machine": machine(device), "pairs": [_plain(pair) for pair in pairs]}


def _plain(pair: Pair) -> dict[str, Any]:
    return {
        "backbone": pair.backbone, "device": pair.device, "data": list(pair.data), "eps": pair.eps,
        "attack": pair.attack, "clean_accuracy": pair.clean if pair.trained else None, "ids": list(pair.ids),
        "usual": _side(pair, pair.usual), "ours": _side(pair, pair.ours), "limit_seconds": list(pair.limit),
        "ratio": pair.ratio, "above_limit": pair.excess,
    }  # fmt: skip


def _side(pair: Pair, side: Side) -> dict[str, Any]:
    return {
        "robust_accuracy": side.robust if pair.trained else None, "forwards": side.forwards,
        "backwards": side.backwards, "seconds": list(side.seconds), "peak_memory": side.memory,
        "broken": [int(value) for value in side.broken],
    }  # fmt: skip


def _cells(pair: Pair) -> list[str]:
    usual, ours, n = pair.usual, pair.ours, len(pair.ids)
    accuracy = f"{100 * pair.clean:.1f}: {100 * usual.robust:.1f} / {100 * ours.robust:.1f}" if pair.trained else "-"
    memory = (f"{side.memory / 2**20:.0f}" if side.memory is not None else "-" for side in (usual, ours))
    return [
        pair.backbone,
        format_eps(pair.eps),
        str(n),
        pair.attack,
        accuracy,
        f"{usual.forwards / n:.1f} / {ours.forwards / n:.1f}",
        f"{usual.backwards / n:.1f} / {ours.backwards / n:.1f}",
        f"{_seconds(usual)} / {_seconds(ours)}",
        f"{pair.ratio:.2f}x",
        " / ".join(memory),
        "-" if pair.excess is None else f"{100 * pair.excess:+.1f} %",
    ]


def _seconds(side: Side) -> str:
    if len(side.seconds) == 1:
        return f"{side.median:.2f}"
    return f"{side.median:.2f} ({min(side.seconds):.2f} to {max(side.seconds):.2f})"
