"""Decoded images on disk, so that a second epoch never decodes: one sparse uint8 file a split, memory-mapped.

`pixels.u8` holds slot i at i * 3 * S * S; `index.bin` holds per slot a checksum of the pixels, and size and marks of
the file they came from. A slot counts only when all three agree, so a torn write, a full disk, a concurrent writer (who
writes the same bytes) or a changed source file lead to decoding once more, never to a wrong image. Pixels are written
through a file handle, not the map, because a full disk is then an error that can be handled.
"""

import errno
import hashlib
import json
import logging
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from apd_bench.data.images import Bytes, Rows

FORMAT = 2
_RECORD = np.dtype([("crc", "<u4"), ("state", "<u4"), ("size", "<i8"), ("time", "<i8")])
_log = logging.getLogger("apd_bench.data")
Signature = tuple[int, int]


def cache_folder(root: Path, name: str, split: str, resize: str, image_size: int, parts: Iterable[str]) -> Path:
    """The folder of a split's cache: readable, and unique for the sample list, its location, resize and decoder."""
    from PIL import __version__ as pillow

    digest = hashlib.sha256(json.dumps([FORMAT, pillow, resize, image_size]).encode())
    for part in parts:
        digest.update(part.encode() + b"\0")
    return root / "images" / f"{name}-{split}-{resize}{image_size}-{digest.hexdigest()[:12]}"


class PixelCache:
    """The decoded images of one split; every method is safe to call from several threads and processes."""

    def __init__(self, folder: Path, count: int, image_size: int) -> None:
        """Opens or creates the files; raises OSError when that is not possible."""
        self._shape = (3, image_size, image_size)
        self._bytes = 3 * image_size * image_size
        folder.mkdir(parents=True, exist_ok=True)
        pixels, index = folder / "pixels.u8", folder / "index.bin"
        for path, size in ((pixels, count * self._bytes), (index, count * _RECORD.itemsize)):
            with path.open("ab") as handle:
                if path.stat().st_size < size:
                    handle.truncate(size)
        self._paths = (pixels, index)
        self._pixels = np.memmap(pixels, np.uint8, "r", shape=(count, *self._shape))
        self._index = np.memmap(index, _RECORD, "r", shape=(count,))
        self._trusted = np.zeros(count, bool)
        self.writable = True

    def get(self, slot: int, signature: Signature) -> Bytes | None:
        """The image in `slot` as uint8 [3, S, S], or None when it is not there or not that of `signature`."""
        if self._trusted[slot]:
            return np.asarray(self._pixels[slot])
        if not self.holds(slot, signature):
            return None
        image = np.array(self._pixels[slot])
        if zlib.crc32(image.tobytes()) != int(self._index[slot]["crc"]):
            return None
        self._trusted[slot] = True
        return image

    def holds(self, slot: int, signature: Signature) -> bool:
        """Whether `slot` says that it holds the image of `signature`; its pixels are not read."""
        record = self._index[slot]
        return bool(record["state"] == 1 and (int(record["size"]), int(record["time"])) == signature)

    def get_trusted(self, slots: Rows) -> Bytes | None:
        """All of `slots` at once as uint8 [n, 3, S, S], or None unless each was verified by this process before."""
        return np.asarray(self._pixels[slots]) if self._trusted[slots].all() else None

    def put(self, slot: int, signature: Signature, image: Bytes) -> None:
        """Stores `image`; on a write error (full disk, lost permission) says so once and stores nothing any more."""
        if not self.writable:
            return
        data, record = image.tobytes(), np.zeros((), _RECORD)
        record["crc"], record["state"] = zlib.crc32(data), 1
        record["size"], record["time"] = signature
        try:
            _write(self._paths[0], slot * self._bytes, data)
            _write(self._paths[1], slot * _RECORD.itemsize, record.tobytes())
        except OSError as error:
            self.writable = False
            _log.warning("The image cache %s takes no more images (%s); going on without.", self._paths[0], error)
            return
        self._trusted[slot] = True


def _write(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b", buffering=0) as handle:
        handle.seek(offset)
        if handle.write(data) != len(data):
            raise OSError(errno.ENOSPC, "only a part could be written")
