"""Writing files so that a crash at any moment leaves the old content or the new one, and a lock for one writer."""

import codecs
import errno
import hashlib
import json
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from glob import escape
from pathlib import Path
from typing import IO

from apd_bench.core.errors import CorruptFile, MissingPrerequisite

_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
_CHECKPOINTS = {".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".tar"}


def atomic_write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replaces `path` by `content`: a temporary file beside it, fsync, rename, fsync of the folder.

    A reader sees the old file or the new one, never a part. Raises MissingPrerequisite when the disk is full or the
    place cannot be written; the temporary file is gone and the old content is untouched then. Temporary files that
    killed writers of the same name left are removed. What is not `durable` may be lost when the machine itself fails.
    """
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
        for other in path.parent.glob(f".{escape(path.name)}.{_HOST}-*.tmp"):
            if _is_abandoned(other):
                other.unlink(missing_ok=True)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise explain(error, path) from error


def _is_abandoned(temporary: Path) -> bool:
    """Whether the process of this machine that was writing a temporary file is gone."""
    number = temporary.name.rpartition("-")[2].removesuffix(".tmp")
    if sys.platform == "win32" or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except (OSError, OverflowError) as error:  # any other one: it is somebody else's
        return isinstance(error, ProcessLookupError)
    return False


def read_text(path: Path) -> str:
    """The text of a file that people write: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises FileNotFoundError where it is not there, CorruptFile with the line of the first byte that is no UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror or error}.") from error
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
        problem, encoding = ("it holds NUL characters", "UTF-16") if "\0" in text else ("", "")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem, encoding = f"line {line} holds the byte 0x{data[error.start]:02x}", "LATIN1"
    if problem:
        raise CorruptFile(
            f"{path} is not UTF-8 text: {problem}.",
            hint=f"Convert it: iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {path.name}.new",
        )
    return text


def read_lines(path: Path) -> list[str]:
    """The lines of `path` that are not blank, stripped; raises as `read_text` does."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def typed_file(*parts: str) -> Path | None:
    """The file at the path that somebody typed; None where there is none, or no file can be called that."""
    with suppress(OSError, ValueError, RuntimeError):
        path = Path(*parts).expanduser()
        if path.is_file():
            return path
    return None


def read_bytes(path: str) -> bytes:
    """The content of a file; a third of the cost of `Path.read_bytes`, which counts where there are 100,000."""
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123  (pathlib is most of that cost)
        return stream.readall()


def usable_cores() -> int:
    """The processors that this process may use."""
    with suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sync_folder(path: Path) -> None:
    """Makes the names inside `path` durable; a no-op where a folder cannot be opened (Windows)."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explain(error: OSError, path: Path | str) -> Exception:
    """The error a person can act on for a failed write to `path`; anything unexpected comes back as it is."""
    if error.errno in _FULL:
        return MissingPrerequisite(
            f"The disk is full: {path} could not be written.",
            hint="Nothing finished is lost: free some space and run the same command again.",
        )
    if error.errno in _DENIED:
        return MissingPrerequisite(
            f"Cannot write to {path}: {error.strerror}.",
            hint="Choose another folder with --results DIR, or mend its permissions.",
        )
    return error


def is_path(text: str) -> bool:
    """Whether somebody who wrote `text` meant a file or folder, there or not."""
    if text.startswith((".", "/", "~")) or Path(text).suffix.lower() in _CHECKPOINTS:
        return True
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # too long for a path, or no text that could be one
        return False


def sha256(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path, kind: str = "sha256") -> str:
    """The hexadecimal digest of a file's content, read in pieces; `kind` "md5" only to recognise files."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@contextmanager
def exclusive_lock(path: Path, *, wait: bool = False, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the lock file `path`; the operating system releases it when the process ends, however it ends.

    With `wait`, polls until the holder is gone, telling `on_wait` once who it is; otherwise raises
    MissingPrerequisite that names the holder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+")
    except OSError as error:
        raise explain(error, path) from error
    with stream:
        told = False
        while not _try_lock(stream):
            holder = _holder(path)
            if not wait:
                raise MissingPrerequisite(
                    f"Another run is writing to {path.parent}{holder}.",
                    hint="Wait for it, add --wait, or choose another folder with --results DIR.",
                )
            if on_wait is not None and not told:
                on_wait(f"waiting for another run{holder}")
                told = True
            time.sleep(0.2)
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now()})
        try:
            stream.truncate(0)
            os.write(stream.fileno(), holder.encode())  # past the buffer, which would be written once more at the end
        except OSError as error:
            raise explain(error, path) from error
        try:
            yield
        finally:
            stream.truncate(0)


def _holder(path: Path) -> str:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return f" (process {data['pid']} on {data['host']}, since {data['since']})"
    except (OSError, ValueError, KeyError):
        return ""


if sys.platform == "win32":
    import msvcrt

    def _try_lock(stream: IO[str]) -> bool:
        try:
            stream.seek(1 << 20)  # a byte far behind the text, which others may read
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(stream: IO[str]) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
