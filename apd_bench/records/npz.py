"""Reading .npz files from memory, thousands of them, without a file object a member.

Sizes are judged as declared, before anything is inflated; no member yields more than it declares.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from apd_bench.core import bounds

Array = NDArray[Any]
_LOCAL = struct.Struct("<4s22x2H")  # the header before the bytes of a member: signature, lengths of name and extra


def arrays(
    content: bytes,
    same_for_many: Collection[str] = (),
    shared: dict[bytes, Array] | None = None,
    without: Callable[[str], bool] = lambda name: False,
    samples: int | None = None,
) -> dict[str, Array]:
    """The arrays in the bytes of an .npz file by name; raises ValueError, zlib.error or zipfile.BadZipFile.

    Names for which `without` is true are left out, unread. `samples` is the number of rows that somebody declared.
    With `shared`, equal arrays among the names `same_for_many` are one read-only array, which `shared` keeps.
    """
    found: dict[str, Array] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
    bounds.inflated(sum(member.file_size for member in members), len(content), samples)
    for member in members:
        name = member.filename.removesuffix(".npy")
        if without(name):
            continue
        packed = _packed(content, member)
        if shared is None or name not in same_for_many:
            found[name] = _array(_unpacked(packed, member))
            continue
        if packed not in shared:
            shared[packed] = _array(_unpacked(packed, member))
            shared[packed].flags.writeable = False
        found[name] = shared[packed]
    return found


def _packed(content: bytes, member: zipfile.ZipInfo) -> bytes:
    signature, name, extra = _LOCAL.unpack_from(content, member.header_offset)
    if signature != b"PK\x03\x04":
        raise ValueError("a member does not begin where the directory says")
    start = member.header_offset + _LOCAL.size + name + extra
    return content[start : start + member.compress_size]


def _unpacked(packed: bytes, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, never more than it declares."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError(f"the member {member.filename} is encrypted or packed in an unusual way")
    stored = member.compress_type == zipfile.ZIP_STORED
    whole = packed if stored else zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.file_size + 1)
    if len(whole) != member.file_size or zlib.crc32(whole) != member.CRC:
        raise ValueError("a member is torn: its size or checksum is not the declared one")
    return whole


def _array(content: bytes) -> Array:
    """The array in the bytes of a .npy file, as numpy reads it, with the parsed header kept for the next file."""
    end = 10 + int.from_bytes(content[8:10], "little")
    dtype, shape = _header(content[:end])
    found: Array = np.frombuffer(content, dtype=dtype, offset=end).reshape(shape).copy()
    return found


@lru_cache(maxsize=512)
def _header(content: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    stream = io.BytesIO(content)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError("a member is no array of numbers or text: its header is not of version 1.0")
    shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    if dtype.kind not in "biufU" or fortran_order:
        raise ValueError("a member is no array of numbers or text: objects and Fortran order are not read")
    return dtype, shape
