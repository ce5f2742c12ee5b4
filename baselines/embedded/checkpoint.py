"""Checkpoints of a training run without pickles."""

import json
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE = "state.safetensors"


def save_state(folder: Path, model: CLIP, optimisers: list[torch.optim.Optimizer], step: int) -> None:
    """Writes everything that a resumed run needs, complete or not at all."""
    tensors = {f"model/{k}": v.detach().clone() for k, v in model.state_dict().items()}
    for i, optimiser in enumerate(optimisers):
        for j, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimiser/{i}/{j}/{key}"] = torch.as_tensor(value).clone()
    partial = folder / "state.partial"
    save_file(tensors, str(partial), metadata={"step": str(step)})
    partial.replace(folder / FILE)


def save_recipe(folder: Path, recipe: dict[str, Any], samples: int, seed: int) -> None:
    """Writes `run.json`, from which the card of the weights is made."""
    content = {"recipe": recipe, "samples_seen": samples, "seed": seed, "torch": torch.__version__.split("+")[0]}
    (folder / "run.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_state(folder: Path, model: CLIP, optimisers: list[torch.optim.Optimizer]) -> int:
    """Restores the checkpoint of the folder; the step to go on with, 0 if there is none."""
    path = folder / FILE
    if not path.is_file():
        return 0
    tensors = load_file(str(path))
    model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
    for i, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimiser/{i}/"):
                _, _, j, name = key.split("/", 3)
                state.setdefault(int(j), {})[name] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    with safe_open(str(path), framework="pt") as handle:
        return int(handle.metadata()["step"])
