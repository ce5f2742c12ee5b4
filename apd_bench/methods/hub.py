"""Prompt states on the Hugging Face hub: `hf://ORG/REPO`, or `hf://ORG/REPO@REVISION`. Imports no torch."""

import re
from pathlib import Path

from apd_bench.backbones.hub import forbid_network, hub_file
from apd_bench.core.errors import UsageError
from apd_bench.core.versions import CARD

HUB = "hf://"
TENSORS = "state.safetensors"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def repository_of(name: str) -> tuple[str, str | None]:
    """Repository and revision; raises UsageError for what does not read as that."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            f"'{name}' is no prompt state on the hub.", hint="Write hf://ORG/REPO or hf://ORG/REPO@REVISION."
        )
    return match[1], match[2]


def pull(name: str) -> Path:
    """The folder with the card and the tensors of one commit, from the cache or downloaded; nothing else is fetched.

    Raises MissingPrerequisite for what is not there or cannot be reached.
    """
    forbid_network()
    repository, revision = repository_of(name)
    card = hub_file(repository, (CARD,), revision)
    hub_file(repository, (TENSORS,), card.parent.name)  # the folder of a snapshot is called by its commit
    return card.parent
