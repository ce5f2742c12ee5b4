"""Imports the heavy packages one after another and says how each went; run as a script by `doctor.py`.

It runs in a process of its own, so that a package whose import crashes or hangs takes nothing else with it. Each line
of output is one JSON object and is written before the next import begins. It uses nothing of apd_bench.
"""

import json
import sys
from importlib import import_module
from typing import Any


def torch_facts() -> dict[str, Any]:
    """Version, build and devices of torch."""
    import torch

    cuda = [
        {"name": torch.cuda.get_device_name(index), "memory": torch.cuda.get_device_properties(index).total_memory}
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    mps = getattr(torch.backends, "mps", None)
    return {
        "version": torch.__version__,
        "cuda_build": torch.version.cuda,
        "cuda": cuda,
        "mps": bool(mps is not None and mps.is_available()),
        "threads": torch.get_num_threads(),
    }


def torchvision_facts() -> dict[str, Any]:
    """The version of torchvision, after one of its compiled operators has run."""
    import torch
    import torchvision

    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    return {"version": torchvision.__version__}


def open_clip_facts() -> dict[str, Any]:
    """The version of open_clip and how many architectures it knows."""
    open_clip = import_module("open_clip")
    return {"version": open_clip.__version__, "architectures": len(open_clip.list_models())}


def main() -> None:
    """Writes one line for each package."""
    for name, facts in (("torch", torch_facts), ("torchvision", torchvision_facts), ("open_clip", open_clip_facts)):
        try:
            found = {"name": name, "facts": facts()}
        except Exception as error:  # whatever an import raises is the finding
            found = {"name": name, "error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
