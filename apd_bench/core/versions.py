"""The versions of apd-bench and of what it keeps on disk; the refusal of files that another one wrote. No torch."""

from typing import Any

from apd_bench.core.errors import OtherSchema

RECORD = 3  # since 2 with its own digest, since 3 with ids of version 2
STATE = 1  # of the card beside a prompt state
CARD, MANIFEST = "card.json", "manifest.json"


def package_version() -> str:
    """The version of apd-bench that is installed; of a source tree that never was, 0.0.0+source."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("apd-bench")
    except PackageNotFoundError:
        return "0.0.0+source"


def refuse_other(found: Any, known: int, what: str) -> None:
    """Raises OtherSchema when `found`, the schema that the file `what` states, is not `known`."""
    if not isinstance(found, int) or found == known:
        return
    if found > known:
        when, knows = "a later", f"the newest that this one knows is {known}"
        hint = "Update apd-bench (pip install --upgrade apd-bench), or choose another folder with --results DIR."
    else:
        when, knows = "an earlier", f"this one reads {known}"
        hint = "Measure anew into another folder (--results DIR), or read it with the version that wrote it."
    said = f"{what} was written by {when} apd-bench: its schema is {found}, {knows}."
    raise OtherSchema(f"{said} Nothing was changed.", hint=hint)
