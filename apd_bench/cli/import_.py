"""`apd-bench import --format FORMAT FILE`: prompts trained by the code of the papers, made ready for evaluation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from apd_bench.errors import EXIT_DONE, MissingPrerequisite

EXAMPLES = """examples:
  apd-bench import --format maple model.pth.tar-5 --backbone ViT-B-16-quickgelu/openai
  apd-bench import --format coop model.pth.tar-50 --backbone ViT-B-32-quickgelu/openai --dataset eurosat
  apd-bench run --methods prompts/maple-1a2b3c4d --datasets all      evaluate what was imported
"""
FORMATS = ("coop", "apt", "vpt", "ivlp", "maple", "fap")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the verb."""
    parser.epilog = EXAMPLES
    parser.add_argument("file", type=Path, metavar="FILE", help="a checkpoint (.pth.tar) of a prompt learner")
    parser.add_argument("--format", required=True, choices=FORMATS, help="whose code wrote it")
    parser.add_argument("--backbone", required=True, metavar="NAME", help="the backbone that it was trained on")
    parser.add_argument("--dataset", metavar="NAME", help="the set it was trained on (class-wise context needs it)")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="instead: class names in label order, one a line")
    parser.add_argument("--position", default="end", choices=("end", "middle", "front"), help="of the class name")
    parser.add_argument("--init", metavar="PHRASE", help="the phrase that the context started from, where it had one")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: prompts/FORMAT-DIGEST")


def execute(args: argparse.Namespace) -> int:
    """Writes the prompt state and prints how to evaluate it."""
    from apd_bench.backbones.load import load
    from apd_bench.methods.importers import import_prompts
    from apd_bench.registry import BACKBONES
    from apd_bench.states import save_state

    if not args.file.is_file():
        raise MissingPrerequisite(f"There is no file '{args.file}'.", hint="Give the path of a .pth.tar checkpoint.")
    backbone = load(BACKBONES.get(args.backbone))
    classes, template = _classes(args, backbone.shapes.image_size)
    state = import_prompts(
        args.file, args.format, backbone, classes=classes, template=template, position=args.position, init=args.init
    )
    folder = args.output or Path("prompts") / f"{args.format}-{state.digest[:8]}"
    save_state(folder, state)
    sys.stdout.write(
        f"{state.card['num_parameters']} parameters ({', '.join(state.state)}) -> {folder}\n"
        f"Evaluate them: apd-bench run --backbone {args.backbone} --methods {folder}\n"
    )
    return EXIT_DONE


def _classes(args: argparse.Namespace, image_size: int) -> tuple[tuple[str, ...] | None, str | None]:
    if args.classes is not None:
        try:
            lines = args.classes.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise MissingPrerequisite(f"Cannot read the class names in '{args.classes}': {error.strerror}.") from error
        return tuple(line.strip() for line in lines if line.strip()), None
    if args.dataset is None:
        return None, None
    from apd_bench.data.load import load_dataset
    from apd_bench.registry import DATASETS

    data = load_dataset(DATASETS.get(args.dataset), image_size=image_size)
    return data.classes, data.template
