"""The pinned inputs: which archives, which icon sets, under which licences.

Excluded, and why:
- openmoji, emojione-v1, arcticons, entypo, typicons, si-glyph, fontelico, brandico, cbi, ps (share-alike or
  non-commercial): the embedded data must be usable in any project.
- dashicons, gridicons, wordpress, icomoon-free, et, gala (GPL): copyleft.
- OFL-1.1 and MPL-2.0 sets: fonts or files under licences with naming and file-level conditions; not needed.
- the categories Logos and Programming, and the brand sets: trademarks, and names that are no English nouns.
- Tux Paint stamps, GCompris (GPL), animal-mnist (the origin of its images is not stated): provenance not clean.
"""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

ICONIFY = ("iconify-json-2.2.535.tgz", "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91")
FASHION = (
    "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)
LICENCES = frozenset(("MIT", "Apache-2.0", "ISC", "CC0-1.0", "CC-BY-4.0", "CC-BY-3.0", "Unlicense", "BSD-3-Clause"))
DROPPED_CATEGORIES = frozenset(("Logos", "Programming"))
WHOLE_SETS = frozenset(
    """twemoji noto fluent-emoji-flat fluent-emoji-high-contrast noto-v1 emojione emojione-monotone fxemoji
    streamline-emojis fluent-emoji game-icons""".split()  # noqa: SIM905
)


def verify(folder: Path, pin: tuple[str, str]) -> Path:
    """The path of a pinned archive whose SHA-256 was checked."""
    path = folder / pin[0]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: see baselines/embedded/README.md for how to get it")
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(path)
    if digest != pin[1]:
        raise ValueError(f"{path}: SHA-256 is {digest}, the pinned one is {pin[1]}")
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Iconify:
    """The icon sets with a permitted licence, read from the pinned archive."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, bytes] = {}
        with tarfile.open(verify(folder, ICONIFY)) as archive:
            for member in archive:
                handle = archive.extractfile(member) if member.isfile() else None
                if handle is not None and member.name.endswith(".json"):
                    self._files[member.name.removeprefix("package/")] = handle.read()
        every: dict[str, dict[str, Any]] = json.loads(self._files["collections.json"])
        self.collections = {
            name: info
            for name, info in every.items()
            if info["license"].get("spdx") in LICENCES
            and info.get("category") not in DROPPED_CATEGORIES
            and "brands" not in name
        }

    def icon_set(self, name: str) -> dict[str, Any]:
        """The parsed file of one set."""
        data: dict[str, Any] = json.loads(self._files[f"json/{name}.json"])
        return data
