"""Opening a set: from its spec to images, through the loader that the spec names."""

from pathlib import Path
from types import FunctionType

from apd_bench.core.errors import UsageError
from apd_bench.core.specs import RESIZES, DatasetSpec, one_of
from apd_bench.core.targets import resolve
from apd_bench.data.splits import ImageSplit as ImageSplit
from apd_bench.data.splits import LoadedDataset as LoadedDataset


def load_dataset(
    spec: DatasetSpec, *, image_size: int, resize: str = "crop", root: str | Path | None = None
) -> LoadedDataset:
    """The set `spec` with images of `image_size` pixels a side; `resize` is "crop" or "squash".

    `root` is the folder that holds the sets (default: $APD_BENCH_DATA). Raises MissingPrerequisite for absent files,
    CorruptFile for files that are not what they claim, UsageError for arguments that make no sense.
    """
    one_of("Resize", resize, RESIZES)
    if image_size < 1:
        raise UsageError(f"An image size of {image_size} makes no image.")
    if not spec.loader:
        raise UsageError(f"'{spec.name}' does not say how it is loaded.", hint=f"Use DATASETS.get({spec.name!r}).")
    load = resolve(spec.loader, FunctionType)
    found: LoadedDataset = load(spec, image_size=image_size, resize=resize, root=None if root is None else Path(root))
    return found
