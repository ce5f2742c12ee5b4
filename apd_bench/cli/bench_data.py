"""`apd-bench bench data`: how fast images come, decoded and from the cache."""

from __future__ import annotations

import argparse

from apd_bench.cli.bench_output import add_output, check, finish, write
from apd_bench.cli.console import err, table
from apd_bench.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the part."""
    parser.add_argument("name", nargs="?", help="a dataset (default: made-up photographs)")
    parser.add_argument("--limit", type=int, metavar="N", help="images to read (default 500; 100 with --quick)")
    parser.add_argument("--image-size", type=int, default=224, metavar="S", help="side of the images (default 224)")
    parser.add_argument("--batch-size", type=int, default=100, metavar="B", help="images at a time (default 100)")
    add_output(parser, "100 images")


def execute(args: argparse.Namespace) -> int:
    """Prints the table: both sides on made-up photographs, or three epochs over a dataset."""
    check(args, "limit", "image_size", "batch_size", "repeats")
    limit = args.limit or (100 if args.quick else 500)
    if args.name is not None:
        return _dataset(args, limit)
    from apd_bench.bench.images import image_row

    err(f"making {limit} photographs of 500 x 375")
    row = image_row(limit, image_size=args.image_size, batch_size=args.batch_size, repeats=args.repeats)
    return finish(args, "data", [row])


def _dataset(args: argparse.Namespace, limit: int) -> int:
    from apd_bench.data.load import ImageSplit, load_dataset
    from apd_bench.data.timing import time_epochs
    from apd_bench.registry import DATASETS

    spec = DATASETS.get(args.name)

    def reopen() -> ImageSplit:
        return load_dataset(spec, image_size=args.image_size).test

    epochs = time_epochs(reopen(), limit=limit, batch_size=args.batch_size, reopen=reopen)
    rows = [(epoch.name, str(epoch.images), f"{epoch.seconds:.2f}", f"{epoch.rate:,.0f}") for epoch in epochs]
    data = {"part": "data", "dataset": spec.name, "epochs": [dict(zip(("epoch", "images", "s"), r)) for r in rows]}  # noqa: B905
    write(args, table(rows, ("epoch", "images", "seconds", "images/s")), data)
    return EXIT_DONE
