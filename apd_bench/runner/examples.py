"""Pictures of an attack: clean image, perturbation, attacked image and both predictions, kept beside the records.

One file a cell, `examples/<cell id>.json` in the store, made on request by `apd-bench examples`; the web page shows
what it finds there. This is the only part of the boards that needs the model, and it runs before the boards.
"""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from apd_bench import attacks
from apd_bench.core.files import atomic_write
from apd_bench.core.specs import ATTACK_SEED, Cell, format_eps
from apd_bench.leaderboard.pictures import FOLDER
from apd_bench.records.store import Store
from apd_bench.runner.stages import Stages
from apd_bench.runner.tasks import Settings, Task


def make_examples(store: Store, cells: Sequence[Cell], count: int, device: str = "cpu") -> list[Path]:
    """Attacks the first `count` correctly classified samples of each cell again and writes the pictures.

    Cells that differ in the method alone get the same samples, those that all of them classify correctly, so that the
    page shows methods side by side; where there are too few of these, the rest are a method's own.
    """
    kept = str(store.path / "checkpoints")
    stages = Stages(Settings(fits=str(store.fits), checkpoints=kept, device=device, threads=1))
    written = []
    outcomes = {cell.id: store.outcomes(cell.id) for cell in cells}
    right = {key: set(map(str, one.sample_id[one.clean_prediction == one.label])) for key, one in outcomes.items()}
    shared: dict[tuple[str, ...], set[str]] = {}
    for cell in cells:
        shared[_place(cell)] = shared.get(_place(cell), right[cell.id]) & right[cell.id]
    for cell in cells:
        names = [*sorted(shared[_place(cell)]), *sorted(right[cell.id] - shared[_place(cell)])][:count]
        text = json.dumps(_pictures(stages, cell, names), indent=1, sort_keys=True)
        written.append(store.path / FOLDER / f"{cell.id}.json")
        atomic_write(written[-1], (text + "\n").encode())
    return written


def _place(cell: Cell) -> tuple[str, ...]:
    fit = cell.fit
    return fit.backbone.name, cell.dataset.name, cell.classes, cell.split, cell.threat.label, cell.attack.label


def _pictures(stages: Stages, cell: Cell, wanted: Sequence[str]) -> list[dict[str, str]]:
    loaded = stages.load(Task(fit=cell.fit, cell=cell), cell)
    classifier, test, names_of = loaded.classifier, loaded.test, loaded.data.classes
    rows = [row for row, name in enumerate(test.ids) if name in wanted]
    if not rows:
        return []
    x, y = test.pixels(rows).to(stages.settings.device), test.labels[rows].to(stages.settings.device)
    names = [test.ids[row] for row in rows]
    result = attacks.run(cell.attack, classifier, x, y, cell.threat, names, ATTACK_SEED)
    with torch.no_grad():
        before, after = classifier(x).argmax(1).tolist(), classifier(result.adversarials).argmax(1).tolist()
    change = ((result.adversarials - x) / max(2 * cell.threat.eps, 1e-9) + 0.5).clamp(0, 1)
    return [
        {
            "method": cell.fit.method.name,
            "dataset": cell.dataset.name,
            "group": cell.dataset.group,
            "backbone": cell.fit.backbone.name,
            "attack": f"{cell.attack.label} at {format_eps(cell.threat.eps, cell.threat.norm)}",
            "sample": names[place],
            "label": names_of[int(y[place])],
            "clean_prediction": names_of[before[place]],
            "adversarial_prediction": names_of[after[place]],
            "clean": _png(x[place]),
            "change": _png(change[place]),
            "attacked": _png(result.adversarials[place]),
        }
        for place in range(len(rows))
    ]


def _png(pixels: Tensor) -> str:
    """An image [3, H, W] in [0, 1] as PNG, base64."""
    array = (pixels.detach().cpu() * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
