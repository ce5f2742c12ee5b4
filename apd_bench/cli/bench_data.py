"""`apd-bench bench data`: how fast images come, decoded and from the cache."""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from apd_bench.cli.console import err, out, table
from apd_bench.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the part."""
    parser.add_argument("name", nargs="?", help="a dataset (default: made-up photographs)")
    parser.add_argument("--limit", type=int, default=500, metavar="N", help="images to read (default 500)")
    parser.add_argument("--image-size", type=int, default=224, metavar="S", help="side of the images (default 224)")
    parser.add_argument("--batch-size", type=int, default=100, metavar="B", help="images at a time (default 100)")


def execute(args: argparse.Namespace) -> int:
    """Times the epochs and prints images a second."""
    from apd_bench.data.load import ImageSplit, load_dataset
    from apd_bench.data.timing import Epoch, folder_split, photographs, time_epochs
    from apd_bench.registry import DATASETS

    epochs: list[Epoch]
    if args.name is None:
        with tempfile.TemporaryDirectory(prefix="apd-bench-timing-") as name:
            work = Path(name)
            err(f"making {args.limit} photographs of 500 x 375")
            photographs(work / "images", args.limit)
            opened = partial(folder_split, work / "images", args.image_size, work / "cache")
            epochs = time_epochs(opened(), limit=args.limit, batch_size=args.batch_size, reopen=opened)
    else:
        spec = DATASETS.get(args.name)

        def reopen() -> ImageSplit:
            return load_dataset(spec, image_size=args.image_size).test

        epochs = time_epochs(reopen(), limit=args.limit, batch_size=args.batch_size, reopen=reopen)
    rows = [(epoch.name, str(epoch.images), f"{epoch.seconds:.2f}", f"{epoch.rate:,.0f}") for epoch in epochs]
    out(table(rows, ("epoch", "images", "seconds", "images/s")))
    return EXIT_DONE
