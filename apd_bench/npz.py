"""Reading .npz files from memory, thousands of them: the zip format as numpy writes it, without a file object a member.

What numpy writes is read here directly; any other zip archive goes through `zipfile`.
"""

from __future__ import annotations

import ast
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_END = struct.Struct("<4s4H2LH")  # end of the directory: signature, disks, entries, size, offset, comment length
_ENTRY = struct.Struct("<4s6H3L5H2L")  # an entry of the directory
_LOCAL = struct.Struct("<4s5H3L2H")  # the header before the bytes of a member
_LARGE = 0xFFFFFFFF  # the real number stands elsewhere (zip64)
_STORED, _DEFLATED = 0, 8
_TEXT_FLAGS = 0x0802  # how names are spelled, and how hard was compressed: nothing that reading depends on


def arrays(
    content: bytes,
    same_for_many: Collection[str] = (),
    shared: dict[bytes, Array] | None = None,
    without: Callable[[str], bool] | None = None,
) -> dict[str, Array]:
    """The arrays in the bytes of an .npz file by name; raises ValueError, zlib.error or zipfile.BadZipFile.

    Names for which `without` is true are left out, unread.
    With `shared`, equal arrays among the names `same_for_many` are one read-only array, which `shared` keeps.
    """
    found: dict[str, Array] = {}
    for file, packed, method, size, crc in _members(content):
        name = file.removesuffix(".npy")
        if without is not None and without(name):
            continue
        if shared is None or name not in same_for_many:
            found[name] = array(_unpacked(packed, method, size, crc))
            continue
        if packed not in shared:
            shared[packed] = array(_unpacked(packed, method, size, crc))
            shared[packed].flags.writeable = False
        found[name] = shared[packed]
    return found


def array(content: bytes) -> Array:
    """The array in the bytes of a .npy file, as numpy reads it, with the parsed header kept for the next file."""
    if content[:6] != b"\x93NUMPY":
        raise ValueError("a member is not an array")
    start = 10 if content[6] == 1 else 12
    end = start + int.from_bytes(content[8:start], "little")
    kind, order, shape = _header(content[start:end])
    dtype = np.dtype(kind)
    if dtype.hasobject or order:
        raise ValueError("an array of objects or in Fortran order")
    found: Array = np.frombuffer(content, dtype=dtype, offset=end).reshape(shape).copy()
    return found


@lru_cache(maxsize=512)
def _header(text: bytes) -> tuple[str, bool, tuple[int, ...]]:
    fields = ast.literal_eval(text.decode("latin1").strip())
    return fields["descr"], fields["fortran_order"], fields["shape"]


def _members(content: bytes) -> Iterator[tuple[str, bytes, int, int, int]]:
    """Name, packed bytes, method, unpacked size and CRC of every member."""
    end = len(content) - _END.size
    if end < 0 or content[end : end + 4] != b"PK\x05\x06":
        yield from _slowly(content)
        return
    _, _, _, _, entries, _, place, _ = _END.unpack_from(content, end)
    for _ in range(entries):
        mark, _, _, flags, method, _, _, crc, packed, size, name, extra, comment, _, _, _, local = _ENTRY.unpack_from(
            content, place
        )
        plain = mark == b"PK\x01\x02" and flags & ~_TEXT_FLAGS == 0 and method in (_STORED, _DEFLATED)
        if not plain or _LARGE in (packed, size, local):
            yield from _slowly(content)
            return
        label = content[place + _ENTRY.size : place + _ENTRY.size + name].decode()
        begin, *_, skipped, more = _LOCAL.unpack_from(content, local)
        if begin != b"PK\x03\x04":
            raise ValueError("a member does not begin where the directory says")
        start = local + _LOCAL.size + skipped + more
        yield label, content[start : start + packed], method, size, crc
        place += _ENTRY.size + name + extra + comment


def _slowly(content: bytes) -> Iterator[tuple[str, bytes, int, int, int]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            whole = archive.read(name)
            yield name, whole, _STORED, len(whole), zlib.crc32(whole)


def _unpacked(packed: bytes, method: int, size: int, crc: int) -> bytes:
    """The bytes of a member, never more than it declares."""
    whole = packed if method == _STORED else zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    if len(whole) != size or zlib.crc32(whole) != crc:
        raise ValueError("a member is torn: its size or checksum is not the declared one")
    return whole
