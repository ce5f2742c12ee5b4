"""Pictures of attacked images that `apd-bench examples` left beside the records, for the web page."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from apd_bench.core.errors import CorruptFile

FOLDER = "examples"
PICTURES = ("clean", "change", "attacked")
FIELDS = (
    "method", "dataset", "group", "backbone", "attack", "sample", "label", "clean_prediction",
    "adversarial_prediction", *PICTURES,
)  # fmt: skip


def load_examples(stores: Sequence[Path]) -> list[dict[str, str]]:
    """Everything that `apd-bench examples` left in the stores, in the order of the cell ids, as text fields.

    Raises CorruptFile for a file that holds anything else.
    """
    found: dict[str, list[dict[str, str]]] = {}
    for store in stores:
        for path in sorted((store / FOLDER).glob("*.json")):
            try:
                items = [{name: str(item[name]) for name in FIELDS} for item in json.loads(path.read_bytes())]
                for item in items:
                    for name in PICTURES:
                        base64.b64decode(item[name], validate=True)
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise CorruptFile(f"{path} is damaged: {error}.", hint="Make it anew: apd-bench examples") from error
            found.setdefault(path.stem, items)
    return [item for key in sorted(found) for item in found[key]]
