"""What was measured as a torch module: `load_classifier(fit_or_cell)`, from pixels in [0,1] to logits."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from apd_bench.backbones.load import load_backbone
from apd_bench.core.errors import IncompatibleChoice, MissingPrerequisite, UnknownName, UsageError
from apd_bench.core.identity import counted, digest
from apd_bench.core.registry import BACKBONES, DATASETS
from apd_bench.core.specs import BackboneSpec, Cell
from apd_bench.data.catalog import class_names
from apd_bench.data.protocols import class_half
from apd_bench.data.splits import LoadedDataset, load_dataset
from apd_bench.defences.base import Verdict
from apd_bench.defences.parse import make_defence
from apd_bench.methods.catalog import state_folder
from apd_bench.prompts.classifier import Classifier
from apd_bench.records.record import Record
from apd_bench.records.store import Store
from apd_bench.records.submission import local_cell
from apd_bench.runner.session import pick_device
from apd_bench.training.known import known
from apd_bench.training.prompt_states import PromptState, load_state, restore


def load_classifier(
    fit_or_cell: str | Path | Record,
    dataset: str | None = None,
    *,
    results: str | Path = "results",
    backbone: str | None = None,
    device: str | torch.device | None = None,
) -> nn.Module:
    """The model behind a record, an id of a cell or fit in `results`, a folder of prompts, or hf://ORG/REPO.

    It is a frozen `torch.nn.Module` from pixels [B, 3, H, W] in [0,1] to logits [B, C] in float32, through which
    gradients reach the pixels: for torchattacks, RobustBench's evaluation, or a loop of your own. The model of a cell
    with a test-time defence adapts to each image as it was judged.

    >>> import apd_bench, torch
    >>> records = apd_bench.run(methods="zero_shot", datasets="food", attacks="fgsm", limit=4)
    >>> model = apd_bench.load_classifier(records[0])
    >>> model(torch.rand(2, 3, 40, 40)).shape
    torch.Size([2, 14])

    `dataset`: whose classes the logits are of (default: those of the cell, or of the fit's training). `backbone`: its
    name, where the card does not lead to it (local files) or the prompts are carried to another. `device`: default
    cuda where there is one. Raises UserError for what is not there, or is no longer what was measured.
    """
    place = torch.device(pick_device(None if device is None else str(device)))
    cell, state = stored_state(fit_or_cell, Store(results))
    spec = _backbone(state, cell, backbone)
    names, template = _classes(state, cell, dataset)
    learner = restore(state, load_backbone(spec, place), names, template)
    model = Classifier.from_learner(learner.backbone, learner, precision=cell.precision if cell else "fp32")
    if cell is None or cell.defence is None:
        return model
    fit, defence, folder = cell.fit, cell.defence, Store(results).fit_path(cell.fit.id)

    def images() -> LoadedDataset:
        return load_dataset(fit.dataset, image_size=model.backbone.shapes.image_size, resize=fit.resize)

    return Verdict(make_defence(defence, model, lambda made: known(made, defence, fit, state, images, folder)))


def stored_state(name: str | Path | Record, store: Store) -> tuple[Cell | None, PromptState]:
    """The prompt state of a record, an id, a folder or an address on the hub, and the cell where that is one."""
    text = name.id if isinstance(name, Record) else str(name)
    folder = None if isinstance(name, Record) else state_folder(text)
    if folder is not None:
        return None, load_state(folder)
    if not store.exists():
        raise MissingPrerequisite(
            f"There are no records in {store.path}, and '{text}' is no folder of prompts.",
            hint="Say where they are with results=.",
        )
    try:
        record = store.record(store.find(text))
    except UnknownName as error:
        fits = [] if isinstance(name, Record) else store.fit_ids(text)
        if len(fits) == 1:
            return None, load_state(store.fit_path(fits[0]))
        several = f"could be any of {len(fits)} fits" if fits else "is neither a cell nor a fit"
        raise UnknownName(f"'{text}' {several} of {store.path}.", hint=error.hint) from error
    if store.fit_problem(record.cell.fit.id) is not None or not store.has_prompts_of(record):
        raise MissingPrerequisite(
            f"The prompts that cell {record.id} was measured with are not in {store.path}.",
            hint=f"Measure it again: apd-bench show {record.id} --as-command",
        )
    return local_cell(record.cell), load_state(store.fit_path(record.cell.fit.id))


def _backbone(state: PromptState, cell: Cell | None, asked: str | None) -> BackboneSpec:
    if asked is not None:
        chosen: BackboneSpec = BACKBONES.get(asked)
        return chosen
    if cell is not None:
        return cell.fit.backbone
    made_for = state.card["backbone"]
    try:
        spec: BackboneSpec = BACKBONES.get(str(made_for["name"]))
    except UnknownName as error:
        raise UsageError(f"The card names its backbone '{made_for['name']}'.", hint="Give it as backbone=.") from error
    if digest(counted(spec)) != digest(made_for):
        raise IncompatibleChoice(
            f"The prompts were made for another '{spec.name}' than the one here.", hint="Give one as backbone=."
        )
    return spec


def _classes(state: PromptState, cell: Cell | None, dataset: str | None) -> tuple[Sequence[str], str]:
    """Class names in label order and the template."""
    if dataset is not None or cell is not None:
        spec = DATASETS.get(dataset) if dataset is not None else cell.dataset  # type: ignore[union-attr]
        names = class_names(spec)
        part = class_half(len(names), "all" if dataset is not None or cell is None else cell.classes)
        return [names[label] for label in part], spec.template
    if len(state.card["classes"]) < 2:
        raise UsageError("Imported prompts are for any classes.", hint="Name the set: load_classifier(FOLDER, 'food').")
    return state.card["classes"], state.card["template"]
