"""The memory that a process or its GPU has held."""

import sys

import torch


def peak_memory(device: torch.device) -> float:
    """The largest memory held so far, in bytes: by torch on a GPU, by the process elsewhere."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return 0.0
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
