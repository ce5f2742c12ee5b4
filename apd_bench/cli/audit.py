"""`apd-bench audit CHECKPOINT`: what the protocol of a paper says of somebody's model, and what a sound attack says."""

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from apd_bench.attacks.parse import parse_attack
from apd_bench.cli import arguments
from apd_bench.cli.console import out
from apd_bench.cli.import_ import add_reading, imported
from apd_bench.cli.run import carry_out
from apd_bench.core.errors import UnknownName, UsageError
from apd_bench.core.files import atomic_write, file_digest
from apd_bench.core.identity import digest
from apd_bench.core.options import DISPLAY, HOW, WHAT, WHERE, WHICH, RunOptions
from apd_bench.core.registry import ATTACKS, BACKBONES, DATASETS, METHODS
from apd_bench.core.text import file_name
from apd_bench.data.catalog import class_names
from apd_bench.leaderboard import published
from apd_bench.leaderboard.boards import collect
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.review import Review, masking, results
from apd_bench.leaderboard.tidy import column_of
from apd_bench.methods.catalog import state_folder
from apd_bench.records.record import Record
from apd_bench.runner.cost import stages_of
from apd_bench.runner.selection import split_list
from apd_bench.suites import load_suite

EXAMPLES = """examples:
  apd-bench audit model.pth.tar-50 --format coop --datasets caltech101 \\
      --backbone ViT-B-32-quickgelu/openai --eps 1/255
  apd-bench audit prompts/fap-1a2b3c4d --datasets eurosat --eps 1/255 \\
      --backbone ViT-B-32-quickgelu/openai --limit all
  apd-bench audit --method mine.py:METHOD --backbone tiny-clean \\
      --datasets food --eps 3/255
"""
SOUND = "worst.fast"
SAMPLES = 1000  # of each set, as in the suite `audit`
_ELSEWHERE = ("suite", "methods", "attacks", "no_reference", "part", "boards", "dry_run", "calibrate", "gpu")


@dataclass(frozen=True)
class _Subject:
    """What is audited: the method in the grid, its format, what a page says of it, what had to be assumed."""

    method: str
    format: str
    name: str
    facts: dict[str, str]
    assumed: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", metavar="CHECKPOINT",
        help="a checkpoint (with --format), a folder of prompts or hf://ORG/REPO; none: the backbone alone",
    )  # fmt: skip
    parser.add_argument("--method", metavar="FILE.py:NAME", help="instead: a method, which is trained first")
    parser.add_argument(
        "--trained-on", dest="dataset", metavar="NAME", help="the set of the class names (default: the only tested one)"
    )
    parser.add_argument(
        "--protocol", metavar="ATTACK", help="the attack whose result is audited (default: that of the format's paper)"
    )
    parser.add_argument(
        "--sound", action="extend", nargs="+", default=[SOUND], metavar="LIST",
        help=f"the attacks that it is held against (default: {SOUND}; autoattack is the slow standard)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("audits"), metavar="DIR", help="for page and JSON")
    add_reading(parser, required=False)
    arguments.declare(parser, WHAT, WHERE, WHICH, HOW, DISPLAY, without=_ELSEWHERE)


def execute(args: argparse.Namespace) -> int:
    """Imports, attacks what is not yet recorded, writes page and JSON, prints the results."""
    options: RunOptions = args.options
    backbones = [BACKBONES.canonical(name) for name in split_list(options.backbones or ())]
    if len(backbones) != 1:
        raise UsageError("An audit is of one model.", hint="Name its backbone: --backbone NAME.")
    subject = _subject(args, options, split_list(options.backbones or ())[0])
    paper = published.protocols()["formats"][subject.format]
    protocol, *sound = (_ball(text) for text in (args.protocol or paper["attack"], *split_list(args.sound)))
    suite = load_suite("blank").with_options(attacks=(protocol, *sound), limit=SAMPLES)
    options = replace(options, methods=(subject.method,), suite="blank")
    grid, store, report = carry_out(options, suite)
    statuses = store.statuses()
    records = [store.record(cell.id) for cell in grid.cells if statuses.get(cell.id) == "success"]
    if not records:
        return report.exit_code
    tables = collect([store.path], {cell.id for cell in grid.cells}).tables
    source = "given with --protocol" if args.protocol else paper["source"]
    review = Review(
        title=f"Audit of {subject.name} on {backbones[0]}",
        subject=subject.facts | {"backbone": backbones[0], "backbone training": records[0].cell.fit.backbone.training},
        protocol=column_of(protocol),
        sound=tuple(sound),
        results=tuple(results(tables, column_of(protocol))),
        published=tuple(pair for table in tables for pair in _claims(table, paper["methods"])),
        masking=tuple(masking(records)),
        assumed=(f"{protocol} stands for the evaluation of the paper: {source}.", *_assumed(subject, records)),
        cost=tuple(asdict(stage) for stage in stages_of(store, records, grid.fits if args.method else ())),
        failed=tuple(report.complaints()),
        command=_command(args, options),
    )
    stem = f"{file_name(subject.name)}-{digest(sorted(cell.id for cell in grid.cells), 8)}"
    pages = {args.out / f"{stem}.html": review.page(), args.out / f"{stem}.json": review.to_json()}
    for path, content in pages.items():
        atomic_write(path, content.encode())
    out("\n".join(result.sentence(review.protocol) for result in review.results))
    for cell in review.masking:
        for reason in cell["suspect"]:
            out(f"{cell['dataset']}, {cell['threat']}, {cell['attack']}: suspect: {reason}")
    out(f"Page and JSON: {', '.join(map(str, pages))}")
    return report.exit_code


def _subject(args: argparse.Namespace, options: RunOptions, backbone: str) -> _Subject:
    if args.file is not None and args.method is not None:
        raise UsageError("A checkpoint and --method are two audits.", hint="Give one of them.")
    if args.method is not None:
        entry = METHODS.get(args.method)
        facts = {"method": entry.name, "digest": entry.digest or "built in"}
        return _Subject(args.method, "prompts", entry.name, facts)
    if args.file is None:
        if args.format is not None:
            raise UsageError("--format says how a checkpoint is read, and none is given.", hint="Give its path first.")
        return _Subject("zero_shot", "prompts", "hand-made prompts", {"prompts": "hand-made, those of each set"})
    name = args.file
    if state_folder(name) is not None:
        entry = METHODS.get(name)
        origin = entry.name.partition("@")[0].removeprefix("imported-")
        known = origin if origin in published.protocols()["formats"] else "prompts"
        return _Subject(name, known, entry.name, {"prompts": entry.name})
    if args.format is None:
        raise UsageError(f"What wrote '{name}'?", hint="Say it with --format; see: apd-bench import --help")
    args.file, args.backbone = Path(name), backbone
    args.dataset = args.dataset or (None if args.classes else _only_set(options))
    folder, state = imported(args)
    recipe = state.card["recipe"]
    facts = {
        "checkpoint": f"{args.file.name} (SHA-256 {file_digest(args.file)[:16]}…)",
        "format": args.format,
        "learner": recipe["learner"],
        "parameters": f"{state.card['num_parameters']:,}",
        "prompts": state.digest[:16],
    }
    read = ", ".join(f"{key} {value}" for key, value in recipe["learner_options"].items())
    assumed = (
        f"The checkpoint is read as: {read}.",
        "How it was trained does not stand in the file; published numbers are chosen by how they were tested.",
        *state.card["warnings"],
    )
    return _Subject(str(folder), args.format, f"{args.format}-{state.digest[:8]}", facts, assumed)


def _only_set(options: RunOptions) -> str | None:
    """The only set that is tested, whose class names a class-wise context may be for."""
    asked = split_list(options.datasets or ())
    try:
        return DATASETS.canonical(asked[0]) if len(asked) == 1 and class_names(DATASETS.get(asked[0])) else None
    except UnknownName:
        return None


def _ball(text: str) -> str:
    """An attack as it is written in records; UsageError for one that looks for a distance."""
    spec = parse_attack(text)
    if ATTACKS.get(spec.name).kind != "ball":
        raise UsageError(f"{spec.label} reports a distance and no accuracy.", hint=f"Audit with {SOUND} or autoattack.")
    return spec.label


def _claims(table: Table, methods: Sequence[str]) -> list[published.Reproduction]:
    (row,) = table.rows
    return published.reproductions(table) if row.trains else published.claims(table, row, methods)


def _assumed(subject: _Subject, records: Sequence[Record]) -> Iterator[str]:
    cell = records[0].cell
    yield from subject.assumed
    for label in dict.fromkeys(record.cell.attack.name for record in records):
        entry = ATTACKS.get(label)
        yield f"{label} is {entry.title}" + (f" ({entry.paper})." if entry.paper else ".")
    yield "Pixels lie in [0,1], budgets are in their units, and the change acts on the image of the model's input size."
    resized = {"crop": "shorter side resized, centre crop", "squash": "squashed to a square"}
    yield f"Test images: {resized.get(cell.test_resize, cell.test_resize)}. All is computed in {cell.precision}."
    yield "Class names are those of each set's card" + (
        f", its template '{cell.dataset.template.splitlines()[0]}'." if subject.method == "zero_shot" else "."
    )
    if cell.limit:
        yield f"At most {cell.limit} test images of each set, with fixed, balanced ids; --limit all takes all."
    carried = [record.fit["carried_from"] for record in records if record.fit.get("carried_from")]
    for backbone in dict.fromkeys(map(str, carried)):
        yield f"The prompts were made for another backbone, {backbone}."
    if cell.fit.method.trains:
        fits = [record.cell.fit for record in records]
        trained = dict.fromkeys(f"{fit.dataset.name}, {fit.shots} shots, seed {fit.seed}" for fit in fits)
        yield f"The method was trained here by its own recipe: {'; '.join(trained)}."


def _command(args: argparse.Namespace, options: RunOptions) -> str:
    """The command line of the audit, without what changes no number."""
    words = ["apd-bench", "audit", *([str(args.file)] if args.file else [])]
    values = {
        "method": args.method, "format": args.format, "trained-on": args.dataset, "classes": args.classes,
        "position": args.position if args.position != "end" else None, "init": args.init, "text": args.text,
        "protocol": args.protocol, "limit": options.limit if options.limit is None else options.limit or "all",
    }  # fmt: skip
    lists = {
        "backbone": options.backbones, "datasets": options.datasets, "eps": options.eps, "seeds": options.seeds,
        "shots": options.shots, "sound": None if args.sound == [SOUND] else args.sound,
    }  # fmt: skip
    words += [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]
    words += [word for name, items in lists.items() if items for word in (f"--{name}", *map(str, items))]
    words += [word for setting in options.settings for word in ("--set", setting)]
    return shlex.join(words)
