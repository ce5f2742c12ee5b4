"""The pixel store of sets on disk: bytes from files, shards or arrays, decoded in threads, kept in the cache."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from apd_bench.core.errors import CorruptFile
from apd_bench.core.files import usable_cores
from apd_bench.data.cache import PixelCache, Signature, cache_folder
from apd_bench.data.digests import file_marks
from apd_bench.data.images import Bytes, Rows, decode, square
from apd_bench.data.listing import Item, Source
from apd_bench.data.names import excluding

_MEMORY = 1 << 30
_MAX_THREADS = 8
_log = logging.getLogger("apd_bench.data")


class FilePixels:
    """Images of a split, decoded when first asked for; with a cache, decoded once per machine.

    Where no cache can be kept, decoded images stay in memory up to 1 GiB.
    """

    def __init__(
        self,
        items: Sequence[Item],
        ids: Sequence[str],
        source: Source,
        dataset: str,
        *,
        image_size: int,
        resize: str,
        orientation: str = "stored",
        cache: Path | None,
    ) -> None:
        self.image_size = image_size
        self._items, self._ids, self._dataset = items, ids, dataset
        self._resize, self._orientation = resize, orientation
        self._base, self._arrays = source.base, source.arrays
        self._stats: dict[str, Signature] = {}
        self._memory: dict[int, Bytes] = {}
        self._folder = None
        if cache is not None:
            parts = [str(source.base.resolve()), *ids, *([] if orientation == "stored" else [orientation])]
            name, split = ids[0].split("/")[:2] if ids else ("empty", "")
            self._folder = cache_folder(cache, name, split, resize, image_size, parts)

    def read(self, rows: Rows) -> Bytes:
        """The images at `rows` as uint8 [n, 3, S, S]; raises one CorruptFile that names all undecodable ones."""
        cache = self._cache
        if cache is not None and len(rows) and (ready := cache.get_trusted(rows)) is not None:
            return ready
        out = np.empty((len(rows), 3, self.image_size, self.image_size), np.uint8)
        failures: dict[str, str] = {}

        def fill(place: int) -> None:
            row = int(rows[place])
            try:
                out[place] = self._image(row)
            except CorruptFile as error:
                failures[self._ids[row]] = error.message

        with ThreadPoolExecutor(max(1, min(_MAX_THREADS, len(rows), usable_cores()))) as pool:
            list(pool.map(fill, range(len(rows))))
        if failures:
            shown = [f"{name} ({reason.removesuffix('.')})" for name, reason in sorted(failures.items())]
            more = f"; and {len(shown) - 5} more" if len(shown) > 5 else ""
            raise CorruptFile(
                f"{len(shown)} image{'s' * (len(shown) > 1)} cannot be used: {'; '.join(shown[:5])}{more}.",
                hint=f"Restore them, or leave them out (recorded) with the dataset options exclude={sorted(failures)!r}"
                f" or problems='exclude', as in --datasets {excluding(self._dataset)}.",
            )
        return out

    def undecodable(self) -> list[int]:
        """The rows whose images cannot be decoded; what the cache already holds is not decoded again."""
        cache, bad = self._cache, []
        for row in range(len(self._items)):
            try:
                if cache is None or not cache.holds(row, self._signature(self._items[row])):
                    self._image(row)
            except CorruptFile:
                bad.append(row)
        return bad

    def _image(self, row: int) -> Bytes:
        cache, item = self._cache, self._items[row]
        signature = self._signature(item)
        if cache is not None and (known := cache.get(row, signature)) is not None:
            return known
        if row in self._memory:
            return self._memory[row]
        image = self._decode(item)
        if cache is not None and cache.writable:
            cache.put(row, signature, image)
        elif (len(self._memory) + 1) * image.nbytes <= _MEMORY:
            self._memory[row] = image
        return image

    def _decode(self, item: Item) -> Bytes:
        if item.path in self._arrays:
            pixels = self._arrays[item.path][item.offset]
            picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            return square(picture, self.image_size, self._resize)
        path = item.file(self._base)
        with _said_of(path):
            data = item.read(self._base)
        return decode(data, self.image_size, self._resize, str(path), self._orientation)

    def _signature(self, item: Item) -> Signature:
        if item.path in self._stats:
            return self._stats[item.path]
        path = item.file(self._base)
        with _said_of(path):
            size, *marks = file_marks(path.stat())
        signature = (size, int.from_bytes(hashlib.sha256(repr(marks).encode()).digest()[:8], "little", signed=True))
        if item.path:  # many samples share the file
            self._stats[item.path] = signature
        return signature

    @cached_property
    def _cache(self) -> PixelCache | None:
        if self._folder is None:
            return None
        try:
            return PixelCache(self._folder, len(self._items), self.image_size)
        except (OSError, ValueError) as error:
            _log.warning("No image cache at %s (%s); images are decoded each time.", self._folder, error)
            return None

    def __getstate__(self) -> dict[str, object]:
        """Without maps and memory, so that a split can go to a worker process."""
        return {name: value for name, value in vars(self).items() if name != "_cache"} | {"_memory": {}}


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """An OSError inside is said of the file `path`."""
    try:
        yield
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror or error}") from error
