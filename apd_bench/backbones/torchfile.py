"""Files of `torch.save`, TorchScript archives and safetensors, read without running anything that stands in them.

A pickle names functions and calls them. Here it gets a stand-in for every name but `OrderedDict` and the functions that
rebuild tensors, and those only make notes of where a tensor lies: numbers are read when a `StoredTensor` is asked for
them. Sizes are those of the file: nothing is inflated, and no tensor is larger than its bytes.
"""

import io
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from apd_bench.core.bounds import safetensors_header
from apd_bench.core.errors import CorruptFile, first_line

MAX_PICKLE = 64 * 2**20  # bytes; the pickle of a whole CLIP model has a twentieth of a megabyte
_SHARED = 4  # times the size of the file: tensors may share their bytes, as tied weights do
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LEGACY_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")  # in the first pickle of files from before torch 1.6


class StoredTable(dict[Any, Any]):
    """An `OrderedDict` of a file."""


class StandIn:
    """What a name in a pickle becomes: it can be called, filled and given a state, and does nothing.

    `name` is what the file called, `state` what it was to be restored from.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None

    def __call__(self, *args: object, **options: object) -> "StandIn":
        """Another stand-in: an object of what `name` names."""
        return StandIn(self.name)

    def append(self, *items: object) -> None:
        """Takes no note of an item."""

    extend = add = __setitem__ = append


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file that has not been read yet: where its storage lies, its type, shape and strides."""

    storage: "Storage"
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        whole = all(type(number) is int and number >= 0 for number in (self.offset, *self.shape, *self.strides))
        if not whole or len(self.shape) != len(self.strides):
            raise ValueError("a tensor's shape makes no sense")
        reach = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if self.numel and (self.numel > self.storage.count or self.offset + reach >= self.storage.count):
            raise ValueError("a tensor is larger than its bytes")

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        return self.numel * self.storage.dtype.itemsize

    def read(self) -> Tensor:
        """The tensor, in memory of its own."""
        if not self.numel:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        flat = torch.frombuffer(bytearray(self.storage.read()), dtype=self.storage.dtype)
        return flat.as_strided(self.shape, self.strides, self.offset).clone()


@dataclass(frozen=True)
class Storage:
    """`count` numbers of a type; `read()` gives their bytes."""

    dtype: torch.dtype
    count: int
    read: Callable[[], bytes]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises CorruptFile with one sentence for anything else."""
    try:
        with path.open("rb") as file:
            safetensors_header(file.read(8), path.stat().st_size)
        return load_file(path)
    except OSError as error:
        raise CorruptFile(f"'{path}' cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, SafetensorError) as error:
        raise CorruptFile(f"'{path}' cannot be read as weights: {first_line(error)}.") from error


def read_torch(path: Path) -> Any:
    """The content of a file of `torch.save` or `torch.jit.save`: plain values, `StoredTensor` and `StandIn`.

    The modules of a TorchScript archive are stand-ins whose `state` is the table of their attributes. Raises
    CorruptFile with one sentence for anything that is no such file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = _read(file, path, size)
            if isinstance(content, StandIn) and not is_torchscript(path):
                raise ValueError(f"it is a whole pickled object ({content.name}); save its state_dict() alone")
        if sum(tensor.bytes for _, tensor in tensors_of(content)) > _SHARED * size:
            raise ValueError("its tensors are larger than the file")
        return content
    except OSError as error:
        raise CorruptFile(f"'{path}' cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise _unreadable(path, str(error) or "it makes no sense") from error
    except (
        *(zipfile.BadZipFile, pickle.UnpicklingError, EOFError, struct.error, MemoryError, RuntimeError),
        *(LookupError, TypeError, AttributeError, ArithmeticError, AssertionError),
    ) as error:
        raise _unreadable(path, "it is torn, or no file of torch.save") from error


def tensors_of(content: Any) -> Iterator[tuple[str, StoredTensor]]:
    """All tensors in nested tables and in the modules of an archive, with dotted names."""
    return ((name, value) for name, value in leaves(content, modules=True) if isinstance(value, StoredTensor))


def leaves(content: Any, *, modules: bool = False) -> Iterator[tuple[str, Any]]:
    """What stands in nested tables, with dotted names; each table is read once. `modules` enters their states too."""
    waiting, seen = [("", content)], set[int]()
    while waiting:
        name, value = waiting.pop()
        table = value.state if modules and isinstance(value, StandIn) else value
        if not isinstance(table, Mapping):
            yield name, table
        elif id(table) not in seen:
            seen.add(id(table))
            waiting += [(f"{name}.{key}".removeprefix("."), item) for key, item in reversed([*table.items()])]


def is_torchscript(path: Path) -> bool:
    """Whether the file is an archive of `torch.jit.save`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read(file: BinaryIO, path: Path, size: int) -> Any:
    if size == 0:
        raise ValueError("it is empty")
    if zipfile.is_zipfile(file):
        return _read_archive(file, path)
    file.seek(0)
    head = file.read(262)
    file.seek(0)
    if head.lstrip()[:1] == b"<":
        raise ValueError("it is a web page, so the download went wrong")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError("it is a pointer of Git LFS; fetch its content with git lfs pull")
    if head[257:262] == b"ustar" or _LEGACY_MAGIC in head[:24]:
        raise ValueError("a torch before 1.6 wrote it: open it with torch.load(weights_only=True) and save it again")
    raise pickle.UnpicklingError


def _unreadable(path: Path, reason: str) -> CorruptFile:
    return CorruptFile(
        f"'{path}' cannot be read as weights: {reason}.",
        hint="It must be a safetensors file or what torch.save writes; fetch or save it again.",
    )


def _read_archive(file: BinaryIO, path: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED}
        pickles = [name for name in members if name.endswith("data.pkl") and name.count("/") <= 1]
        if len(pickles) != 1:
            raise ValueError("it is an archive of something else, or compressed, which torch.save never does")
        root = pickles[0].removesuffix("data.pkl")
        if members[pickles[0]].file_size > MAX_PICKLE:
            raise ValueError(f"its table of contents has more than {MAX_PICKLE} bytes")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        pickled = archive.read(pickles[0])
    storages: dict[str, Storage] = {}

    def place(kind: str, key: str, count: int) -> Storage:
        dtype, name = _DTYPES[kind], f"{root}data/{key}"
        if name not in members or members[name].file_size < count * dtype.itemsize:
            raise ValueError("a tensor is larger than its bytes")

        def read() -> bytes:
            try:
                with zipfile.ZipFile(path) as again, again.open(name) as member:
                    content = member.read(count * dtype.itemsize)
                if len(content) != count * dtype.itemsize:
                    raise EOFError
                return content
            except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:
                raise _unreadable(path, "it is torn") from error

        return storages.setdefault(key, Storage(dtype, count, read))

    return _Unpickler(io.BytesIO(pickled), place).load()


class _Unpickler(pickle._Unpickler):
    """A pickle machine that calls nothing but the notes of this module.

    It is the one in Python, not the one in C: its memory grows with the file and not with the numbers in it.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, file: BinaryIO | io.BytesIO, place: Callable[[str, str, int], Storage]) -> None:
        super().__init__(file, encoding="latin1")
        self.place = place

    def find_class(self, module: str, name: str) -> Any:
        """The function that makes a note, or a stand-in."""
        return _KNOWN.get(f"{module}.{name}") or StandIn(f"{module}.{name}")

    def get_extension(self, code: int) -> None:
        """Refuses codes of a registry that is not in the file."""
        raise ValueError(f"its pickle asks for the extension {code}")

    def persistent_load(self, pid: Any) -> Any:
        """The storage that a tensor refers to."""
        kind, key, count = pid[1], pid[2], pid[4]
        if pid[0] != "storage" or (len(pid) > 5 and pid[5] is not None) or type(count) is not int or count < 0:
            raise ValueError("a tensor refers to something else than a storage")
        name = kind.name.rpartition(".")[2]
        return self.place(name, key, count) if name in _DTYPES else StandIn(kind.name)

    def _called(self) -> None:
        """REDUCE, NEWOBJ: the function below the arguments on the stack is called, where it is one of ours."""
        args = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], args)

    def _restored(self) -> None:
        """BUILD: a stand-in takes note of its state; nothing else has one."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], StandIn):
            self.stack[-1].state = state

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = _called
    dispatch[pickle.BUILD[0]] = _restored


def _call(function: Any, args: Any) -> Any:
    if not isinstance(function, StandIn) and function not in _KNOWN.values():
        raise ValueError("its pickle calls something that is no function")
    return function(*args)


def _tensor(storage: Any, offset: int, shape: Any, strides: Any, *_: object) -> Any:
    """A note of a tensor; a stand-in where the storage is of a type that has no place here."""
    if isinstance(storage, StandIn):
        return storage
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: object) -> Any:
    return tensor


def _typed(function: Any, kind: Any, args: Any, *_: object) -> Any:
    return _call(function, args)


_KNOWN: dict[str, Any] = {
    "collections.OrderedDict": StoredTable,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _typed,
}
