"""Code by name: what lies behind a target, and the Python files that a person named. Imports no torch.

A target, "module:attribute", is written in this package, in an installed plug-in or in a file that somebody named on
the command line or in Python. Names that are read from a record, a card, an archive or a checkpoint never become one.
"""

import hashlib
import importlib
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from apd_bench.core.errors import UsageError, unknown_name

PLUGIN = "apd_bench_plugin_"
_DIGEST = "__code_digest__"
_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>\w+)")
T = TypeVar("T")


def resolve(target: str, kind: type[T]) -> T:
    """The object behind "package.module:attribute"; raises UsageError when it is not there, or not a `kind`."""
    module_name, _, attribute = target.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
        for part in attribute.split(".") if attribute else ():
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"Cannot load '{target}': {error}.") from error
    if not isinstance(value, kind):
        raise UsageError(f"'{target}' is a {type(value).__name__}, not a {kind.__name__}.")
    return value


def names_code(text: str) -> bool:
    """Whether a name has FILE.py:NAME in it: no registered name has, so none in a record, card or archive may."""
    return ".py:" in text


def split_file(text: str) -> tuple[Path, str] | None:
    """File and name of "path/to/file.py:NAME"; None for any other text."""
    match = _FILE.fullmatch(text)
    return (Path(match["file"]).expanduser(), match["name"]) if match else None


def from_file(text: str, kind: type[T], what: str) -> T:
    """The `kind` that "path/to/file.py:NAME" names, called `what` in errors; the file is run once per content."""
    file = split_file(text)
    if file is None:
        raise UsageError(f"'{text}' does not read as FILE.py:NAME.")
    path, name = file
    module = import_file(path)
    if not hasattr(module, name):
        raise unknown_name(f"name in {path.name}", name, [key for key in vars(module) if not key.startswith("_")])
    value = getattr(module, name)
    if not isinstance(value, kind):
        how = "apd_bench.plugin.define('mine', ...)" if what == "method" else f"{kind.__name__}(name='mine', ...)"
        raise UsageError(
            f"'{name}' in '{path}' is a {type(value).__name__}, not a {what}.", hint=f"Write {name} = {how}."
        )
    return value


def import_file(path: Path) -> ModuleType:
    """The module in a Python file, run once per content; raises UsageError when it cannot be."""
    path = path.expanduser().resolve()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"There is no file '{path}'.", hint="Give path/to/file.py:NAME.") from error
    mark = _digest(content)
    module_name = f"{PLUGIN}{mark}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    module = ModuleType(module_name)
    module.__file__ = str(path)
    setattr(module, _DIGEST, mark)
    sys.modules[module_name] = module
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102  (the file that somebody named)
    except Exception as error:
        del sys.modules[module_name]
        raise UsageError(f"Importing '{path}' failed: {type(error).__name__}: {error}.") from error
    return module


def code_digest(module_name: str) -> str | None:
    """The digest of the file of a module from outside this package; None for this package and where there is no file.

    Does not import the module itself.
    """
    if module_name.partition(".")[0] == "apd_bench":
        return None
    module = sys.modules.get(module_name)
    if module is not None and hasattr(module, _DIGEST):
        return str(getattr(module, _DIGEST))
    try:
        found = find_spec(module_name) if module is None else None
        file = getattr(module, "__file__", None) if module is not None else found.origin if found else None
        return None if file is None else _digest(Path(file).read_bytes())
    except (ImportError, ValueError, OSError):
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
