"""The names of image sets as they are written: `food101@publisher`, `folder:PATH(problems='exclude')`."""

import re
import shlex
from pathlib import Path
from typing import Any

from apd_bench.core.errors import UsageError
from apd_bench.core.specs import parse_call

FOLDER = "folder"
_PLAIN_PATH = re.compile(r"[\w./~+@%=:-]+")  # what neither a shell, a list of names nor a wildcard reads in its own way


def parts(name: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a set as it is written; of an image folder the path is an option.

    `folder:PATH(option=...)`: what exists as a folder is the path, so a path may end in brackets of its own.
    """
    if not name.startswith("folder:"):
        head, options = parse_call(name)
        head, _, split = head.partition("@")
        return head, {"split": split, **options} if split else options
    written = name.removeprefix("folder:")
    if not Path(written).expanduser().is_dir() and written.endswith(")"):
        for place in [match.start() for match in re.finditer(r"\(", written)][::-1]:
            try:
                return FOLDER, {"path": written[:place], **parse_call(f"{FOLDER}{written[place:]}")[1]}
            except UsageError:
                continue
    return FOLDER, {"path": written}


def written_name(name: str, options: dict[str, Any]) -> str:
    """The name with its options, as it can be typed again."""
    rest = dict(options)
    if "path" in rest and _PLAIN_PATH.fullmatch(rest["path"]):
        name = f"{FOLDER}:{rest.pop('path')}"
    elif "path" not in rest and "split" in rest:
        name = f"{name}@{rest.pop('split')}"
    inner = ", ".join(f"{key}={value!r}" for key, value in rest.items())
    return f"{name}({inner})" if inner else name


def quoted(name: str, **options: str) -> str:
    """The set `name` with further `options`, quoted so that a shell takes it as it is."""
    head, given = parts(name)
    written = written_name(head, {**given, **options})
    return shlex.quote(written) if any(sign in written for sign in '"$`\\!') else f'"{written}"'


def excluding(name: str) -> str:
    """The set `name` with the option problems='exclude', quoted for a shell."""
    return quoted(name, problems="exclude")
