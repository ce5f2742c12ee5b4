"""Prompt states for others: what `push` puts into a repository of the Hugging Face hub."""

import tempfile
from pathlib import Path

from apd_bench.backbones.hub import upload
from apd_bench.core.errors import UsageError
from apd_bench.methods.catalog import repository_of
from apd_bench.training.prompt_states import PromptState, save_state

_README = """---
library_name: apd-bench
tags: [prompt-tuning, adversarial-robustness]
---

# {title}

Prompts ({parameters} numbers, digest `{digest}`) of the method `{method}` for the backbone `{backbone}`.

```bash
apd-bench run --backbone {backbone} --methods {name} --datasets {dataset}
```

Recipe, class names and origin stand in `card.json`, the tensors in `state.safetensors`.
"""


def backbone_of(state: PromptState) -> str:
    """How the backbone of a prompt state is typed; of a local file the card knows the architecture alone."""
    made_for = state.card["backbone"]
    name = str(made_for["name"])
    return f"{name}:FILE@{made_for['architecture']}" if name.startswith("local") else name


def push(state: PromptState, name: str, *, private: bool = False) -> str:
    """Puts a prompt state with a page about it into `hf://ORG/REPO`, as one commit, and returns the commit's address.

    Raises UsageError for another name or one with a revision, MissingPrerequisite when the hub does not take it.
    """
    repository, revision = repository_of(name)
    if revision is not None:
        raise UsageError("What is pushed becomes the newest revision.", hint=f"Leave out '@{revision}'.")
    card = state.card
    page = _README.format(
        title=card["recipe"].get("title") or card["method"],
        parameters=card["num_parameters"],
        digest=state.digest[:16],
        method=card["method"],
        backbone=backbone_of(state),
        name=name,
        dataset=card.get("dataset") or "NAME",
    )
    with tempfile.TemporaryDirectory(prefix="apd-bench-push-") as folder:
        save_state(folder, state)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return upload(repository, files | {"README.md": page.encode()}, f"Prompts {state.digest[:16]}", private=private)
