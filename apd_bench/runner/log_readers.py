"""What a run's log says as scalars, for TensorBoard and Weights & Biases. Imports no torch."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from apd_bench.core.bounds import parse_json
from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.core.identity import digest
from apd_bench.core.text import file_name

_LOOK = 1.0  # seconds between two looks at a log that is followed


@dataclass(frozen=True)
class Scalar:
    """A number of a fit: "train/loss" at epoch `step`, or what a cell gave, "test/food/all | ... | pgd/robust"."""

    fit: str
    name: str
    step: int
    value: float


def log_events(path: Path, *, follow: bool = False) -> Iterator[Mapping[str, Any]]:
    """The events of a log; with `follow`, also those that are still being written, until a run ends.

    A last line without an end is not yet an event. Raises MissingPrerequisite or CorruptFile.
    """
    try:
        stream = path.open(encoding="utf-8")
    except OSError as error:
        raise MissingPrerequisite(
            f"There is no log '{path}'.", hint=f"Write one: apd-bench run --log {path}"
        ) from error
    last, number, text = "", 0, ""
    with stream:
        while True:
            text += stream.readline()
            if text.endswith("\n"):
                number += 1
                event = _event(text, f"line {number} of {path}")
                last, text = str(event["event"]), ""
                yield event
            elif follow and last != "finish":
                time.sleep(_LOOK)
            else:
                return


def _event(line: str, place: str) -> Mapping[str, Any]:
    try:
        event = parse_json(line)
        if isinstance(event, dict) and isinstance(event["event"], str):
            return event
    except (ValueError, KeyError):
        pass
    raise CorruptFile(f"{place} is no event of a run.", hint="Give a file that --log wrote.")


def scalars(found: Iterable[Mapping[str, Any]]) -> Iterator[Scalar]:
    """The numbers in events, each once: losses by epoch, all terms once a fit is trained, accuracies of cells."""
    seen: set[tuple[str, str, int]] = set()
    for event in found:
        if event["event"] == "task_started" and event.get("kind") == "fit":  # trained once more
            seen = {key for key in seen if key[0] != event.get("fit")}
        for item in _numbers(event):
            key = (item.fit, item.name, item.step)
            if key not in seen or item.name.startswith("test/"):
                seen.add(key)
                yield item


def _numbers(event: Mapping[str, Any]) -> Iterator[Scalar]:
    fit = str(event.get("fit", ""))
    live = [{"epoch": event["epoch"] - 1, "loss": event["loss"]}] if event["event"] == "epoch" else []
    for row in live or event.get("rows", []):
        for name, value in row.items():
            if name != "epoch" and isinstance(value, (int, float)):
                yield Scalar(fit, f"train/{name}", int(row["epoch"]) + 1, value)
    tested = str(event.get("label", "")).partition(" -> ")[2]
    for name, value in (event.get("metrics") or {}).items():
        if name.endswith("_accuracy"):
            yield Scalar(fit, f"test/{tested}/{name.removesuffix('_accuracy')}", 0, value)


def to_tensorboard(numbers: Iterable[Scalar], folder: Path) -> None:
    """Writes one TensorBoard run a fit into `folder`; raises MissingPrerequisite where the extra is not installed."""
    make = _library("tensorboard", "torch.utils.tensorboard").SummaryWriter
    writers: dict[str, Any] = {}
    with ExitStack() as stack:
        for item in numbers:
            if item.fit not in writers:
                name = f"{file_name(item.fit)}-{digest(item.fit, 6)}"  # the first may be cut
                writers[item.fit] = stack.enter_context(make(str(folder / name)))
            writers[item.fit].add_scalar(item.name, item.value, item.step)
            writers[item.fit].flush()


def to_wandb(numbers: Iterable[Scalar], project: str) -> None:
    """Logs one run a fit of the W&B project; raises MissingPrerequisite where the extra is not installed."""
    wandb = _library("wandb", "wandb")
    runs: dict[str, Any] = {}
    try:
        for item in numbers:
            if item.fit not in runs:
                runs[item.fit] = wandb.init(project=project, name=item.fit, reinit="create_new")
                runs[item.fit].define_metric("train/*", step_metric="epoch")
            if item.name.startswith("test/"):
                runs[item.fit].summary[item.name] = item.value
            else:
                runs[item.fit].log({item.name: item.value, "epoch": item.step})
    finally:
        for run in runs.values():
            run.finish()


def _library(extra: str, module: str) -> Any:
    if find_spec(extra) is None:
        raise MissingPrerequisite(f"{extra} is not installed.", hint=f"pip install 'apd-bench[{extra}]'")
    return import_module(module)
