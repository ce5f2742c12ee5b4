"""Prompt templates: one text with `{}` for the class name, or an ensemble of several, one a line. Torch-free.

The text feature of an ensemble is the mean of the normalised features of its texts, normalised again, as open_clip
and CLIP_benchmark compute it.
"""

from typing import Any

from apd_bench.core.errors import UsageError
from apd_bench.core.package_data import package_path

_SIMPLE = (73, 7, 44, 69, 35, 67, 64)  # the seven of CLIP's notebook, CoOp's IMAGENET_TEMPLATES_SELECT
NAMED = ("openai7", "openai80")


def ensemble(value: Any) -> str:
    """`value`, a template, a list of templates or a name of NAMED, as one text with a template a line.

    Raises UsageError for what is none of these, and for a template without `{}`.
    """
    if value in NAMED:
        lines = package_path("data", "cards", "imagenet_templates.txt").read_text("utf-8").splitlines()
        return "\n".join(lines if value == "openai80" else [lines[place] for place in _SIMPLE])
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not parts:
        raise UsageError(f"{value!r} is no template.", hint=_HINT)
    for part in parts:
        if not isinstance(part, str) or "\n" in part or "\r" in part:
            raise UsageError(f"The template {part!r} is not one line of text.", hint=_HINT)
        if "{}" not in part:
            raise UsageError(f"The template '{part}' has no '{{}}' for the class name.", hint=_HINT)
    if len(set(parts)) != len(parts):
        raise UsageError("The ensemble has a template twice.", hint="Each template counts once; remove the other.")
    return "\n".join(parts)


_HINT = f"Write 'a photo of a {{}}.', a list of such texts, or one of {', '.join(NAMED)}."
