"""What a defence keeps of the images that a fit's prompts were trained on: computed once, stored beside the prompts."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from apd_bench.core.bounds import safetensors_header
from apd_bench.core.files import atomic_write
from apd_bench.core.specs import DefenceSpec, Fit
from apd_bench.data.protocols import few_shot_dataset
from apd_bench.data.splits import LoadedDataset
from apd_bench.defences.base import Defence
from apd_bench.training.prompt_states import PromptState

_BATCH = 64  # images at once


def known(
    defence: Defence, spec: DefenceSpec, fit: Fit, state: PromptState, data: Callable[[], LoadedDataset], folder: Path
) -> dict[str, Tensor]:
    """`defence.learn` of the few-shot images of `fit`, drawn from `data()`; kept in `folder` where that is there.

    The file is named after the defence, its version and the prompts; one that cannot be read is made anew. Raises
    IncompatibleChoice for a set without training images.
    """
    path = folder / f"known-{spec.name}-{spec.version}-{spec.code or 'own'}-{state.digest[:16]}.safetensors"
    try:
        content = path.read_bytes()
        safetensors_header(content, len(content))
        return dict(load(content))
    except (OSError, ValueError, SafetensorError):
        pass
    train = few_shot_dataset(data(), shots=fit.shots, seed=fit.seed, classes=fit.classes).train
    if train is None:
        raise AssertionError("a few-shot set has training images")
    device, places = defence.classifier.backbone.device, range(len(train))
    batches = (train.pixels(list(places[at : at + _BATCH])).to(device) for at in places[::_BATCH])
    values = defence.learn(batches)
    if folder.is_dir():
        atomic_write(path, save({name: value.contiguous() for name, value in values.items()}))
    return values
