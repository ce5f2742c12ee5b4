"""Reading images: decoding every file in every epoch, as image folders are usually read, against the image cache."""

from __future__ import annotations

import tempfile
from pathlib import Path

from apd_bench.bench.rows import Row, in_turn
from apd_bench.data.timing import folder_split, photographs


def image_row(count: int, *, image_size: int, batch_size: int, repeats: int) -> Row:
    """An epoch over `count` made-up photographs, opened anew each time, without and with the cache; same bytes."""
    with tempfile.TemporaryDirectory(prefix="apd-bench-timing-") as name:
        work = Path(name)
        photographs(work / "images", count)

        def epoch(cache: Path | None) -> int:
            split = folder_split(work / "images", image_size, cache)
            total = 0
            for low in range(0, count, batch_size):
                total += int(split.images(range(low, min(low + batch_size, count))).sum())
            return total

        first = in_turn({"first": lambda: epoch(work / "cache")}, 1, warm=False)["first"][0]
        same = epoch(None) == epoch(work / "cache")
        seconds = in_turn({"usual": lambda: epoch(None), "ours": lambda: epoch(work / "cache")}, repeats)
    return Row(
        part="data",
        what=f"an epoch over {count:,} JPEG files of 500 x 375 at {image_size} px",
        usual=seconds["usual"],
        ours=seconds["ours"],
        facts={"first epoch, which fills the cache, s": round(first, 2), "same pixels": "yes" if same else "no"},
    )
