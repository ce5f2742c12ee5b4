"""Which name belongs to which class folder: from `classnames.txt`, from `dataset.toml`, or the folder itself."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from apd_bench.core.errors import CorruptFile
from apd_bench.core.files import read_lines
from apd_bench.core.text import spoken

NAMES = "classnames.txt"


def in_order(folders: Sequence[str]) -> list[str]:
    """Class folders in label order: by number where all are numbers (2 before 10), else by name."""
    if all(name.isascii() and name.isdigit() for name in folders):
        return sorted(folders, key=lambda name: (int(name), name))
    return sorted(folders)


def name_classes(path: Path, folders: Sequence[str], table: Mapping[str, str]) -> dict[str, str]:
    """Class folder -> class name for the set in `path`, in label order; `table` is [classes] of `dataset.toml`.

    Raises CorruptFile where a name is missing, belongs to no folder or to two, or where the order is in doubt. Only a
    list that says `folder name` may give two folders one name, as the field's list of ImageNet does.
    """
    file = path / NAMES
    if file.is_file():
        if table:
            raise CorruptFile(f"Both {file} and [classes] in dataset.toml name the classes.", hint="Keep one of them.")
        lines = read_lines(file)
        if pairs := _pairs(file, folders, lines):
            return {folder: spoken(pairs[folder]) for folder in folders}
        table = _in_place(file, folders, lines)
    if strange := sorted(set(table) - set(folders)):
        raise CorruptFile(f"'{strange[0]}' is named as a class, but there is no such folder in {path}.")
    names = {folder: spoken(table.get(folder, folder)) for folder in folders}
    first: dict[str, str] = {}
    for folder, name in names.items():
        other = first.setdefault(normalize("NFC", name).casefold(), folder)
        if other != folder:
            raise CorruptFile(
                f"The class folders '{other}' and '{folder}' of {path} are both called '{name}', so no text can tell "
                "them apart.",
                hint=f"Give one of them another name in {NAMES if file.is_file() else 'dataset.toml, [classes]'}.",
            )
    return names


def _pairs(file: Path, folders: Sequence[str], lines: Sequence[str]) -> dict[str, str]:
    """The names of lines that say `folder name`, as CoOp's `wnid name`; nothing where not every folder has one."""
    known, pairs = set(folders), [line.split(maxsplit=1) for line in lines]
    named = [words for words in pairs if len(words) == 2 and words[0] in known]
    table = {words[0]: words[1] for words in named}
    if len(table) < len(folders):
        return {}
    if len(named) > len(table):
        twice = next(folder for folder in folders if [words[0] for words in named].count(folder) > 1)
        raise CorruptFile(f"{file} names the folder '{twice}' twice.", hint="Keep one of the lines.")
    return table


def _in_place(file: Path, folders: Sequence[str], lines: Sequence[str]) -> dict[str, str]:
    """The names of lines that are the folders' own names in any order, or that stand in the folders' order."""
    own = {spoken(folder).casefold(): folder for folder in folders}
    meant = [own.get(spoken(line).casefold()) for line in lines]
    if len(lines) != len(folders):
        raise CorruptFile(
            f"{file} names {len(lines)} classes, but there are {len(folders)} class folders.",
            hint="Write one name a line in the order of the class folders, or lines of `folder name`.",
        )
    if twice := next((line for line in lines if lines.count(line) > 1), None):
        raise CorruptFile(f"{file} has the name '{twice}' twice, so no text can tell the two classes apart.")
    if set(meant) == set(folders):
        return {folder: line for folder, line in zip(meant, lines, strict=True) if folder}
    if _is_table(lines, folders):
        raise CorruptFile(
            f"The lines of {file} hold more than names, as '{lines[0]}'.",
            hint="Write one name a line in the order of the class folders, or lines of `folder name`.",
        )
    for line, folder, other in zip(lines, folders, meant, strict=True):
        first, *rest = line.split(maxsplit=1)
        another = line if other not in (None, folder) else first if rest and first in folders else folder
        if another != folder:
            raise CorruptFile(
                f"{file} has '{line}' in the place of the class folder '{folder}', but '{another}' is a folder itself.",
                hint='Say it folder by folder in dataset.toml, under [classes]: folder = "name".',
            )
    return dict(zip(folders, lines, strict=True))


def _is_table(lines: Sequence[str], folders: Sequence[str]) -> bool:
    """Whether all lines have numbers, quotes, the folder before a separator, or at the end a folder that is a key."""
    numbers = [match and int(match[1]) for match in (re.match(r"(\d+)[.:)]?\s", line) for line in lines)]
    if numbers in ([*range(len(lines))], [*range(1, len(lines) + 1)]):
        return True
    forms = (
        (rf"[\"'].*[\"']|{re.escape(f)}\s*[,:;=|].*", rf".*\W{re.escape(f)}", f.isalpha() or f.isdigit())
        for f in folders
    )
    return all(
        re.fullmatch(before, line) or (not word and re.fullmatch(behind, line))
        for line, (before, behind, word) in zip(lines, forms, strict=True)
    )
