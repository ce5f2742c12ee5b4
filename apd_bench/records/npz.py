"""Reading .npz files from memory, thousands of them: the zip format as numpy writes it, without a file object a member.

What numpy writes is read here directly; any other zip archive goes through `zipfile`. Sizes are judged as declared,
before anything is inflated; no member yields more than it declares.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apd_bench.core import bounds

Array = NDArray[Any]
_END = struct.Struct("<4s4H2LH")  # end of the directory: signature, disks, entries, size, offset, comment length
_ENTRY = struct.Struct("<4s6H3L5H2L")  # an entry of the directory
_LOCAL = struct.Struct("<4s5H3L2H")  # the header before the bytes of a member
_LARGE = 0xFFFFFFFF  # the real number stands elsewhere (zip64)
_STORED, _DEFLATED = 0, 8
_HEADER = re.compile(
    rb"\{'descr': '([<|>=]?[biufU][0-9]{1,5})', 'fortran_order': False, 'shape': \(((?:[0-9]{1,12},? ?)*)\), ?\} *\n?"
)
_TEXT_FLAGS = 0x0802  # how names are spelled, and how hard was compressed: nothing that reading depends on


def arrays(
    content: bytes,
    same_for_many: Collection[str] = (),
    shared: dict[bytes, Array] | None = None,
    without: Callable[[str], bool] | None = None,
    samples: int | None = None,
) -> dict[str, Array]:
    """The arrays in the bytes of an .npz file by name; raises ValueError, zlib.error or zipfile.BadZipFile.

    Names for which `without` is true are left out, unread. `samples` is the number of rows that somebody declared.
    With `shared`, equal arrays among the names `same_for_many` are one read-only array, which `shared` keeps.
    """
    found: dict[str, Array] = {}
    members = list(_members(content))
    bounds.inflated(sum(size for *_, size, _ in members), len(content), samples)
    for file, packed, method, size, crc in members:
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
    dtype, shape = _header(content[start:end])
    found: Array = np.frombuffer(content, dtype=dtype, offset=end).reshape(shape).copy()
    return found


@lru_cache(maxsize=512)
def _header(text: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    fields = _HEADER.fullmatch(text)
    if fields is None:
        raise ValueError("a member is no array of numbers or text: objects and Fortran order are not read")
    return np.dtype(fields[1].decode()), tuple(map(int, re.findall(rb"[0-9]+", fields[2])))


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
        bounds.inflated(sum(entry.file_size for entry in archive.infolist()), len(content))
        for entry in archive.infolist():
            if entry.compress_type not in (_STORED, _DEFLATED) or entry.flag_bits & 1:
                raise ValueError(f"the member {entry.filename} is encrypted or packed in an unusual way")
            whole = archive.read(entry)
            yield entry.filename, whole, _STORED, len(whole), zlib.crc32(whole)


def _unpacked(packed: bytes, method: int, size: int, crc: int) -> bytes:
    """The bytes of a member, never more than it declares."""
    whole = packed if method == _STORED else zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    if len(whole) != size or zlib.crc32(whole) != crc:
        raise ValueError("a member is torn: its size or checksum is not the declared one")
    return whole
