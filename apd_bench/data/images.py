"""Decoding and the two test-time resizes of this field, on Pillow alone. Torch-free."""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from apd_bench.core import bounds
from apd_bench.core.errors import CorruptFile
from apd_bench.core.specs import RESIZES, one_of

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]
# Only these decoders are tried: the others cost time for every WebP file and have no business in an image set.
FORMATS = ("JPEG", "PNG", "WEBP", "PPM", "GIF", "BMP", "TIFF")
_TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
TURNED, DEEP = "turned", "16-bit"


def square(image: Image.Image, size: int, resize: str = "crop") -> Bytes:
    """`image` as uint8 [3, size, size].

    "crop": shorter side to `size`, bicubic, then the centre; what CLIP's own preprocessing does. "squash": both sides
    to `size`, aspect ratio ignored; what FAP trains with. Raises ValueError for pixels of 32 bits.
    """
    one_of("Resize", resize, RESIZES)
    picture = _rgb(image)
    width, height = picture.size
    if resize == "squash":
        target = (size, size)
    else:
        target = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    if target != (width, height):
        picture = picture.resize(target, Image.Resampling.BICUBIC)
    left, top = round((target[0] - size) / 2.0), round((target[1] - size) / 2.0)
    if target != (size, size):
        picture = picture.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))


def decode(data: bytes, size: int, resize: str, what: str, orientation: str = "stored") -> Bytes:
    """The encoded image `data` as uint8 [3, size, size]; raises CorruptFile naming `what` when it does not decode.

    `orientation` "stored" takes the pixels as they lie in the file, as CoOp's reader does; "exif" turns them as the
    EXIF tag asks. Grey values of 16 bits are scaled by 255 / 65535; of 32 bits they are refused, for their range is
    not stated.
    """
    with _opened(data, what) as image:
        turn = _TURNS.get(_orientation(image)) if orientation == "exif" else None
        return square(image if turn is None else _rgb(image).transpose(turn), size, resize)


def remarks(data: bytes, what: str) -> frozenset[str]:
    """What a reader should know of the image `data`: TURNED (an EXIF tag asks for a turn), DEEP (16-bit grey values).

    Raises CorruptFile where `decode` does.
    """
    with _opened(data, what) as image:
        found = {TURNED} if _orientation(image) in _TURNS else set()
        found |= {DEEP} if _is_deep(image) else set()
        _rgb(image)
    return frozenset(found)


@contextmanager
def _opened(data: bytes, what: str) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            bounds.pixels(image.width, image.height)
            image.load()
            yield image
    except UnidentifiedImageError as error:
        raise CorruptFile(f"The image {what} cannot be decoded: it is none of {', '.join(FORMATS)}.") from error
    except (
        *(OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError, OverflowError),
        *(Image.DecompressionBombError, Image.DecompressionBombWarning),
    ) as error:
        raise CorruptFile(f"The image {what} cannot be decoded: {str(error).removesuffix('.')}.") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if _is_deep(image):
        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = "whole numbers" if image.mode == "I" else "floats"
        raise ValueError(f"its pixels are {kind} of 32 bits, whose range no rule states; save it with 8 or 16 bits")
    return image.convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    """Whether the grey values have 16 bits; Pillow opens a deep PGM, and did a deep PNG, in its mode of 32 bits."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION_TAG)
    return value if isinstance(value, int) else 1


class MemoryPixels:
    """Encoded images kept in memory and decoded once each, on first use."""

    def __init__(self, encoded: Sequence[bytes], names: Mapping[int, str], image_size: int, resize: str) -> None:
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
