"""Unpacking archives so that the result is whole or absent: into a temporary folder first, then moved. Torch-free."""

import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

from apd_bench.core.errors import CorruptFile


def unpack(archive: Path, target: Path, *, strip: str = "", into: str = "", inner: str = "") -> None:
    """Unpacks a tar (any compression) or zip archive below `target`; what is there already stays.

    `strip` is a leading folder of the archive that is dropped, `into` one put in its place; `inner` names an archive
    inside the archive that is unpacked instead. Raises CorruptFile for a damaged archive or one that reaches outside.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=target) as name:
        work = Path(name)
        _extract(archive, work)
        if inner:
            nested = next(iter(sorted(work.rglob(Path(inner).name))), None)
            if nested is None:
                raise CorruptFile(f"{archive} does not contain {inner}.", hint="The publisher has changed the archive.")
            work = work / ".inner"
            _extract(nested, work)
        elif strip:
            work = work / strip
            if not work.is_dir():
                raise CorruptFile(f"{archive} has no folder {strip}.", hint="The publisher has changed the archive.")
        _move_children(work, target / into if into else target)


def _extract(archive: Path, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(work)  # noqa: S202  (zipfile drops drive letters, leading slashes and "..")
        else:
            with tarfile.open(archive) as packed:
                for member in packed:
                    path = work / member.name
                    if not path.resolve().is_relative_to(work.resolve()):
                        raise CorruptFile(f"{archive} contains '{member.name}', which lies outside of its folder.")
                    if content := packed.extractfile(member) if member.isfile() else None:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        with path.open("wb") as out:
                            shutil.copyfileobj(content, out, 1 << 20)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk or a lost permission, not a damaged archive
        raise CorruptFile(
            f"{archive} cannot be unpacked: {error}.", hint="Delete it and prepare the set again."
        ) from error


def _move_children(source: Path, target: Path) -> None:
    """Moves every entry of `source` into `target`, merging folders that both have; existing files are replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _move_children(entry, place)
        else:
            entry.replace(place)
