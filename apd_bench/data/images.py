"""Decoding and the two test-time resizes of this field, on Pillow alone. Torch-free."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from apd_bench.errors import CorruptFile
from apd_bench.specs import RESIZES, one_of

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]
# Only these decoders are tried: the others cost time for every WebP file and have no business in an image set.
FORMATS = ("JPEG", "PNG", "WEBP", "PPM", "GIF", "BMP", "TIFF")


def square(image: Image.Image, size: int, resize: str = "crop") -> Bytes:
    """`image` as uint8 [3, size, size].

    "crop": shorter side to `size`, bicubic, then the centre; what CLIP's own preprocessing does. "squash": both sides
    to `size`, aspect ratio ignored; what FAP trains with. EXIF orientation is ignored, as in CoOp's reader.
    """
    one_of("Resize", resize, RESIZES)
    picture = image if image.mode == "RGB" else image.convert("RGB")
    width, height = picture.size
    if resize == "squash":
        target = (size, size)
    else:
        short = min(width, height)
        target = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
        if short == size:
            target = (width, height)
    if target != (width, height):
        picture = picture.resize(target, Image.Resampling.BICUBIC)
    left, top = round((target[0] - size) / 2.0), round((target[1] - size) / 2.0)
    if target != (size, size):
        picture = picture.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))


def decode(data: bytes, size: int, resize: str, what: str) -> Bytes:
    """The encoded image `data` as uint8 [3, size, size]; raises CorruptFile naming `what` when it does not decode."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            return square(image, size, resize)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise CorruptFile(f"The image {what} cannot be decoded: {error}.") from error


class MemoryPixels:
    """Encoded images kept in memory and decoded once each, on first use."""

    def __init__(self, encoded: list[bytes], names: list[str], image_size: int, resize: str) -> None:
        self.image_size = image_size
        self._encoded, self._names, self._resize = encoded, names, resize
        self._decoded: dict[int, Bytes] = {}

    def read(self, rows: Rows) -> Bytes:
        """The images at `rows` as uint8 [n, 3, S, S]."""
        out = np.empty((len(rows), 3, self.image_size, self.image_size), np.uint8)
        for place, row in enumerate(rows.tolist()):
            if row not in self._decoded:
                self._decoded[row] = decode(self._encoded[row], self.image_size, self._resize, self._names[row])
            out[place] = self._decoded[row]
        return out
