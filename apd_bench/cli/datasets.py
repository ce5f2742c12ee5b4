"""`apd-bench datasets`: what there is, what of it is on this machine, and how to get the rest."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from apd_bench.cli.console import err, err_again, out, out_json
from apd_bench.core.errors import EXIT_DONE, EXIT_USAGE, IncompatibleChoice, MissingPrerequisite
from apd_bench.core.registry import DATASETS
from apd_bench.core.specs import DatasetSpec
from apd_bench.core.text import table
from apd_bench.data.cards import Card, card_of
from apd_bench.data.catalog import class_names
from apd_bench.data.check import ABSENT, INCOMPLETE, READY, Finding, check_set
from apd_bench.data.places import data_roots
from apd_bench.data.prepare import carry_out, fetch_shards, plan_steps, webdataset_steps
from apd_bench.runner.selection import split_list

EXAMPLES = """examples:
  apd-bench datasets list                         classes, images, licences
  apd-bench datasets check                        what is here, what is missing
  apd-bench datasets check oxford_pets --images   decode every image
  apd-bench datasets card dtd                     classes, splits, citation
  apd-bench datasets prepare oxford_pets          download, or say how

folder:PATH is a set of images of yours: PATH/{train,val,test}/<class>/*.jpg or
PATH/<class>/*.jpg, named by the folders, classnames.txt or dataset.toml.
NAME(template='a {}.') sets the template of any set, a list or 'openai80' an
ensemble; NAME(problems='exclude') leaves out files that cannot be read;
NAME(orientation='exif') turns images.

APD_BENCH_DATA is the folder that holds the sets, in CoOp's layout
($APD_BENCH_DATA/oxford_pets/images and .../split_zhou_OxfordPets.json), in
torchvision's, or as webdataset shards.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))
    listing = actions.add_parser("list", help="every set that is known")
    check = actions.add_parser("check", help="what is there, what is missing, what mends it")
    prepare = actions.add_parser("prepare", help="download what has a stable source, say what to do by hand")
    card = actions.add_parser("card", help="all that is known about one set")
    for action in (listing, check):
        action.add_argument("names", nargs="*", metavar="NAME", help="names, wildcards, folder:PATH (default: all)")
    for action in (prepare, card):
        action.add_argument("names", nargs="+", metavar="NAME", help="names or wildcards")
    for action in (listing, check, card):
        action.add_argument("--json", action="store_true", help="JSON on standard output")
    for action in (check, prepare):
        action.add_argument("--data", metavar="DIR", help="the folder (or folders, as in PATH) that hold the sets")
    check.add_argument("--images", action="store_true", help="also decode every image")
    prepare.add_argument("--layout", choices=("coop", "webdataset"), default="coop", help="which copy to fetch")
    prepare.add_argument("--offline", action="store_true", help="open no connection; only say what would be done")
    prepare.add_argument("--keep-archives", action="store_true", help="do not delete archives after unpacking")


def execute(args: argparse.Namespace) -> int:
    """Carries out one action."""
    actions = {"list": _list, "check": _check, "prepare": _prepare, "card": _card}
    names = split_list(args.names)
    chosen = DATASETS.select(names) if names else DATASETS.names()
    return actions[args.action](args, [DATASETS.get(name) for name in chosen])


def _list(args: argparse.Namespace, specs: list[DatasetSpec]) -> int:
    keys = ("name", "title", "group", "classes", "train", "val", "test", "licence")
    rows = [
        (spec.name, spec.title, spec.group, spec.num_classes, *(spec.counts.get(n) for n in keys[4:7]), spec.licence)
        for spec in specs
    ]
    if args.json:
        out_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        shown = [tuple("-" if value is None else str(value)[:60] for value in row) for row in rows]
        out(table(shown, keys))
    return EXIT_DONE


def _check(args: argparse.Namespace, specs: list[DatasetSpec]) -> int:
    roots = data_roots(*_given(args.data))
    findings = [check_set(spec, roots, images=args.images) for spec in specs]
    if args.json:
        out_json([asdict(finding) for finding in findings])
    else:
        rows = [
            (item.name, item.state, item.layout or "-", _counts(item), item.message if item.state == READY else "")
            for item in findings
        ]
        out(table(rows, ("set", "state", "layout", "train/val/test", "remarks")))
        absent = [item.name for item in findings if item.state == ABSENT and not args.names]
        for item in findings:
            if item.state != READY and item.name not in absent:
                fix = item.fix or f"apd-bench datasets card {item.name}"
                out(f"\n{item.name}: {item.message}\n  to mend it: {fix}")
        if absent:
            out(f"\nabsent: {', '.join(absent)}\n  where to get one: apd-bench datasets prepare NAME --offline")
        err(f"looked below: {', '.join(map(str, roots))}")
    unready = [item for item in findings if item.state != READY]
    return EXIT_USAGE if args.names and unready else EXIT_DONE


def _given(data: str | None) -> tuple[Path, ...]:
    return tuple(Path(part) for part in (data or "").split(os.pathsep) if part)


def _counts(item: Finding) -> str:
    return "/".join(str(item.counts.get(name, "-")) for name in ("train", "val", "test")) if item.counts else "-"


def _card(args: argparse.Namespace, specs: list[DatasetSpec]) -> int:
    for spec in specs:
        if spec.group == "benchmark":
            facts = asdict(card_of(spec)) | {"template": spec.template.splitlines()}
        else:
            facts = asdict(spec) | {"classes": class_names(spec)}
        facts = {key: value for key, value in facts.items() if value not in (None, "", (), {}, [])}
        if args.json:
            out_json(facts)
            continue
        classes = facts.pop("classes", ())
        lines = [(f"{key}:", _line(value)) for key, value in facts.items() if key not in ("folders", "wnids")]
        out(table([*lines, ("classes:", ", ".join(classes))]))
        out()
    return EXIT_DONE


def _line(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, (tuple, list)):
        return ", ".join(_line(item) for item in value)
    return str(value)


def _prepare(args: argparse.Namespace, specs: list[DatasetSpec]) -> int:
    roots = data_roots(*_given(args.data))
    left = 0
    for spec in specs:
        if spec.group == "embedded":
            out(f"{spec.name}: ready, it is part of the package")
            continue
        if spec.group != "benchmark":
            raise IncompatibleChoice(f"{spec.name} is a folder of yours; there is nothing to prepare.")
        card = card_of(spec)
        if check_set(spec, roots).state == READY:
            out(f"{spec.name}: ready")
            continue
        _prepare_one(args, card, roots[0])
        if args.layout == "webdataset" and card.split_file:
            spec = DATASETS.get(f"{card.name}@publisher")
        finding = check_set(spec, roots)
        left += finding.state != READY
        out(f"{spec.name}: {finding.state}" + (f" ({finding.message})" if finding.state == INCOMPLETE else ""))
    return EXIT_USAGE if left else EXIT_DONE


def _prepare_one(args: argparse.Namespace, card: Card, root: Path) -> None:
    shards = args.layout == "webdataset"
    steps = webdataset_steps(card, root) if shards else plan_steps(card, root)
    if shards and not steps:
        raise IncompatibleChoice(f"There is no webdataset copy of {card.title}.")
    todo = [step for step in steps if not step.done]
    out(f"{card.title} ({card.licence}; {card.source})")
    for step in steps:
        out(f"  {'done' if step.done else 'by hand' if not step.url else 'to do'}: {step.text}")
    if args.offline:
        return
    if shards:
        fetch_shards(card, root, on_fetch=_progress)
        return
    for step in todo:
        if step.url:
            try:
                carry_out(card, step, on_fetch=_progress, keep=args.keep_archives)
            except MissingPrerequisite as error:
                err(f"{error}")


def _progress(name: str) -> Callable[[int, int], None]:
    """Progress of one download: a line that is rewritten on a terminal, a line for each tenth elsewhere."""
    shown, step = -1, 1 if sys.stderr.isatty() else 10

    def on_progress(done: int, total: int) -> None:
        nonlocal shown
        share = int(100 * done / total) if total else 0
        if share // step != shown // step:
            shown = share
            size = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
            err_again(f"  {name}: {size} ({share} %)", last=done >= total)

    return on_progress
