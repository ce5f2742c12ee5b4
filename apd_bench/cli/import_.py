"""`apd-bench import --format FORMAT FILE`: prompts trained by the code of the papers, made ready for evaluation."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from apd_bench.cli.console import out
from apd_bench.core.errors import EXIT_DONE, CorruptFile, MissingPrerequisite, UsageError
from apd_bench.core.files import read_lines
from apd_bench.core.registry import DATASETS
from apd_bench.data.catalog import builtin, class_names

if TYPE_CHECKING:
    from apd_bench.training.prompt_states import PromptState

EXAMPLES = """examples:
  apd-bench import --format maple model.pth.tar-5 \\
      --backbone ViT-B-16-quickgelu/openai
  apd-bench run --methods prompts/maple-1a2b3c4d --datasets all   attack it
"""
FORMATS = ("coop", "apt", "cocoop", "vpt", "ivlp", "maple", "fap")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a checkpoint (.pth.tar, .pt, .safetensors)")
    parser.add_argument("--backbone", required=True, metavar="NAME", help="the backbone that it was trained on")
    parser.add_argument("--dataset", metavar="NAME", help="the set it was trained on; its images need not be here")
    add_reading(parser, required=True)


def add_reading(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Declares how a checkpoint is read; `imported` hears it, and `file`, `backbone` and `dataset`."""
    group = parser.add_argument_group("how the checkpoint is read")
    group.add_argument("--format", required=required, choices=FORMATS, help="whose code wrote it")
    group.add_argument("--classes", type=Path, metavar="FILE", help="the class names in label order, one a line")
    group.add_argument("--position", default="end", choices=("end", "middle", "front"), help="of the class name")
    group.add_argument("--init", metavar="PHRASE", help="the phrase that the context started from, where it had one")
    group.add_argument(
        "--text", metavar="TEMPLATE", help="class text of vpt (default: 'a photo of a {}.'; '': the set's template)"
    )
    group.add_argument("--output", type=Path, metavar="FOLDER", help="default: prompts/FORMAT-DIGEST")


def imported(args: argparse.Namespace) -> tuple[Path, PromptState]:
    """The prompt state in the checkpoint, and the folder that it was written to."""
    from apd_bench.backbones.load import load_backbone
    from apd_bench.training.importers import import_prompts
    from apd_bench.training.prompt_states import has_state, load_state, save_state

    if not args.file.is_file():
        inside = sorted(path for path in args.file.glob("**/*.pth.tar*") if path.is_file())
        hint = f"In that folder lies '{inside[-1]}'." if inside else "Give the path of a .pth.tar checkpoint."
        raise MissingPrerequisite(f"There is no file '{args.file}'.", hint=hint)
    classes = _classes(args)
    backbone = load_backbone(args.backbone)
    state = import_prompts(
        args.file, args.format, backbone, classes=classes, position=args.position, init=args.init, text=args.text
    )
    folder = args.output or Path("prompts") / f"{args.format}-{state.digest[:8]}"
    if has_state(folder) and load_state(folder).digest != state.digest:
        raise UsageError(f"There is another prompt state in '{folder}'.", hint="Give another folder with --output.")
    save_state(folder, state)
    return folder, state


def execute(args: argparse.Namespace) -> int:
    """Writes the prompt state and prints how to evaluate it."""
    folder, state = imported(args)
    classes = tuple(state.card["classes"])
    learner, options = state.card["recipe"]["learner"], state.card["recipe"]["learner_options"]
    dataset = args.dataset
    if dataset is None and options.get("class_specific"):  # a known set with these classes in this order
        dataset = next((spec.name for spec in builtin() if class_names(spec) == classes), None)
    lines = [f"{state.card['num_parameters']} parameters of the learner '{learner}' -> {folder}"]
    lines += state.card["warnings"]
    if "text" in options:
        lines.append(f"Text of every class: {options['text'] or 'the template of the set'}")
    command = ["apd-bench", "run", "--backbone", args.backbone, "--methods", str(folder)]
    if options.get("class_specific") and dataset is None:
        lines.append("Its context is for these classes alone: put the set that has them in place of SET.")
        dataset = "SET"
    command += ["--datasets", dataset] if dataset else []
    lines.append(f"Evaluate them: {shlex.join(command)}")
    out("\n".join(lines))
    return EXIT_DONE


def _classes(args: argparse.Namespace) -> tuple[str, ...] | None:
    """The class names of the file or of the set; None where neither is given."""
    if args.classes is None:
        return None if args.dataset is None else class_names(DATASETS.get(args.dataset))
    if args.dataset is not None:
        raise UsageError("--classes and --dataset both name the classes.", hint="Give one of them.")
    try:
        names = tuple(read_lines(args.classes))
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"There is no file of class names '{args.classes}'.") from error
    if not names:
        raise CorruptFile(f"'{args.classes}' holds no class name.", hint="Write one a line, in label order.")
    return names
