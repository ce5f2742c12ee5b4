"""One generic registry: lazy targets, aliases, wildcards, entry points, and errors that name the nearest match.

The five registries at the end are the only global state of the package. Their entries are small, torch-free
descriptions ("catalog" modules); what an entry's `target` points at is imported only when it is used.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FunctionType
from typing import Any

from apd_bench.core.cache import remember
from apd_bench.core.errors import UsageError, unknown_name
from apd_bench.core.targets import code_digest, from_file, names_code, resolve, split_file

_ON_DEMAND = "resolved from "
_NAME = re.compile(r"[\w][\w.:/@#+-]*")


@dataclass
class Registry:
    """Named entries of one kind: frozen objects of the class `entry`, with a `name` and `aliases`.

    Built-ins come from `catalog`, plug-ins from the entry-point `group` and from `path/to/file.py:NAME`, whatever
    `resolver` makes of a name from itself.
    """

    kind: str
    catalog: str
    group: str
    list_command: str
    resolver: str = ""
    entry: str = "builtins:object"
    files: dict[str, str] = field(default_factory=dict)  # canonical name -> file.py:NAME, of what came from a file
    _entries: dict[str, Any] = field(default_factory=dict)
    _origin: dict[str, str] = field(default_factory=dict)
    _aliases: dict[str, str] = field(default_factory=dict)
    _loaded: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def register(self, entry: Any, *, origin: str = "this session") -> Any:
        """Adds `entry`, marked with the digest of the file that its code lies in, and returns it.

        Raises UsageError when it is none of this kind, or when its name or an alias is already taken.
        """
        self._load()
        kind: Any = resolve(self.entry, type)
        if not isinstance(entry, kind):
            raise UsageError(f"{origin} gives a {type(entry).__name__}, not a {kind.__name__}: it is no {self.kind}.")
        for name in (entry.name, *entry.aliases):
            if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() == "all":
                raise UsageError(f"{name!r} of {origin} is no name for a {self.kind}.", hint="Use letters and digits.")
        target = getattr(entry, "loader", None) or getattr(entry, "target", None)
        if target and "code" in {item.name for item in fields(entry)}:
            entry = replace(entry, code=code_digest(target.partition(":")[0]))
        return self._add(entry, origin)

    def unregister(self, name: str) -> None:
        """Removes the entry `name`, for tests and interactive use."""
        entry = self._entries.pop(name)
        self._origin.pop(name, None)
        self.files.pop(name, None)
        for alias in entry.aliases:
            self._aliases.pop(alias, None)

    def refresh(self) -> None:
        """Forgets what was resolved from its name, so that a folder or file that has changed is looked at again."""
        for name in [name for name, origin in self._origin.items() if origin.startswith(_ON_DEMAND)]:
            self.unregister(name)

    def get(self, name: str) -> Any:
        """The entry called `name` (canonical or alias, any case); raises UnknownName with the nearest match."""
        return self._entries[self.canonical(name)]

    def canonical(self, name: str) -> str:
        """The canonical name behind `name`; names such as a local path or `hf-hub:` id are resolved on demand."""
        self._load()
        text = name.strip()
        holder = self._holder(text)
        if holder is not None:
            return holder
        if split_file(text) is not None:
            return self._from_file(text)
        if self.resolver:
            entry = resolve(self.resolver, FunctionType)(text)
            if entry is not None:
                return str(self._add_resolved(entry, text).name)
        raise unknown_name(self.kind, name, [*self._entries, *self._aliases], command=self.list_command)

    def names(self) -> list[str]:
        """All canonical names in catalog order (plug-ins after the built-ins)."""
        self._load()
        return list(self._entries)

    def aliases(self) -> dict[str, str]:
        """Every alias with the canonical name it stands for."""
        self._load()
        return dict(self._aliases)

    def origin(self, name: str) -> str:
        """Where the entry came from: "built-in" or the distribution of the plug-in."""
        return self._origin[self.canonical(name)]

    def select(self, patterns: list[str], *, universe: list[str] | None = None) -> list[str]:
        """Canonical names that match `patterns`, in catalog order.

        A pattern is a name, an alias, a wildcard, or `all`; a leading `!` excludes. `universe` limits what `all` and
        wildcards mean; without it they mean all names but calls such as `apd(temperature=2)`, which somebody wrote.
        Raises UnknownName when a pattern matches nothing.
        """
        known = universe if universe is not None else [name for name in self.names() if "(" not in name]
        chosen: list[str] = []
        excluded: set[str] = set()
        for pattern in patterns:
            negative, text = pattern.startswith("!"), pattern.removeprefix("!").strip()
            found = self._match(text, known)
            if negative:
                excluded.update(found)
            else:
                chosen.extend(name for name in found if name not in chosen)
        if not chosen and excluded:
            chosen = list(known)
        order = {name: place for place, name in enumerate([*known, *self.names()])}
        kept = [name for name in chosen if name not in excluded]
        return sorted(kept, key=lambda name: order.get(name, len(order)))

    def __iter__(self) -> Iterator[Any]:
        self._load()
        return iter(self._entries.values())

    def _match(self, text: str, known: list[str]) -> list[str]:
        if text.lower() == "all":
            return list(known)
        if any(sign in text for sign in "*?["):
            found = [name for name in known if fnmatchcase(name, text)]
            if found:
                return found
            if ":" not in text and "(" not in text:  # else a name whose options or path have such signs
                raise unknown_name(self.kind, text, known, command=self.list_command)
        return [self.canonical(text)]

    def _holder(self, name: str) -> str | None:
        """The canonical name of the entry that is found under `name`."""
        for candidate in (name, name.lower()):
            on_demand = self._origin.get(candidate, "").startswith(_ON_DEMAND)  # such a name may be a path
            if candidate in self._entries and (candidate == name or not on_demand):
                return candidate
            if candidate in self._aliases:
                return self._aliases[candidate]
        return None

    def _add(self, entry: Any, origin: str) -> Any:
        with self._lock:
            for name in (entry.name, *entry.aliases):
                if names_code(name):
                    raise UsageError(f"'{name}' is no name for a {self.kind}: FILE.py:NAME stands for code.")
                holder = self._holder(name)
                if holder is not None:
                    raise UsageError(
                        f"The {self.kind} name '{name}' of {origin} is already taken by '{holder}' "
                        f"({self._origin.get(holder, 'built-in')}).",
                        hint="Rename one of the two; built-in names cannot be replaced.",
                    )
            self._entries[entry.name] = entry
            self._origin[entry.name] = origin
            self._aliases.update(dict.fromkeys(entry.aliases, entry.name))
        return entry

    def _add_resolved(self, entry: Any, text: str) -> Any:
        """Adds the entry that a name resolved to; an earlier entry of the same name or content is replaced."""
        held = self._entries.get(entry.name)
        if held is entry:  # another spelling of it
            return entry
        origin = f"{_ON_DEMAND}'{text}'"
        if held is not None and (self._origin[entry.name] == origin or _same(held, entry)):
            self.unregister(entry.name)
        return self._add(entry, origin)

    def _from_file(self, text: str) -> str:
        entry: Any = from_file(text, resolve(self.entry, type), self.kind)
        path, _, name = text.rpartition(":")
        place = f"{Path(path).expanduser().resolve()}:{name}"
        held = self._entries.get(entry.name)
        if held is not None and entry.name in self.files and (self.files[entry.name] == place or _same(held, entry)):
            self.unregister(entry.name)
        entry = self.register(entry, origin=text)
        self.files[entry.name] = place
        mark = getattr(entry, "digest", None) if self.kind == "method" else entry.code
        if mark:
            remember(f"{self.kind} {entry.name} {mark}", place)
        return str(entry.name)

    def _load(self) -> None:
        if self._loaded:
            return
        with self._lock:
            self._loaded = True
            for entry in resolve(f"{self.catalog}:builtin", FunctionType)():
                self._add(entry, "built-in")
            for point in entry_points(group=self.group):
                origin = source_of(point)
                try:
                    loaded = point.load()
                except Exception as error:
                    raise UsageError(
                        f"The plug-in '{point.name}' of {origin} cannot be loaded: {type(error).__name__}: {error}.",
                        hint=f"Mend or uninstall it: pip uninstall {origin.partition(' ')[0]}",
                    ) from error
                self.register(loaded, origin=origin)


def source_of(point: EntryPoint) -> str:
    """Distribution and version of a plug-in."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _same(held: Any, entry: Any) -> bool:
    mark = getattr(entry, "digest", None)
    return held == entry or (mark is not None and mark == getattr(held, "digest", None))


def _registry(kind: str, room: str, entry: str) -> Registry:
    catalog = f"apd_bench.{room}.catalog"
    where = (f"apd_bench.{kind}s", f"apd-bench list {kind}s", f"{catalog}:resolve", f"apd_bench.{entry}")
    return Registry(kind, catalog, *where)


BACKBONES = _registry("backbone", "backbones", "core.specs:BackboneSpec")
METHODS = _registry("method", "methods", "methods.entry:MethodEntry")
DATASETS = _registry("dataset", "data", "core.specs:DatasetSpec")
ATTACKS = _registry("attack", "attacks", "attacks.catalog:AttackEntry")
DEFENCES = _registry("defence", "defences", "defences.catalog:DefenceEntry")
REGISTRIES = (BACKBONES, METHODS, DATASETS, ATTACKS, DEFENCES)


def plugin_files() -> tuple[tuple[str, str], ...]:
    """The kind and the `file.py:NAME` of everything that came from a file, for other processes to name as well."""
    return tuple((registry.kind, place) for registry in REGISTRIES for place in registry.files.values())


def name_plugins(named: tuple[tuple[str, str], ...]) -> None:
    """Makes what `plugin_files` lists known in this process."""
    registries = {registry.kind: registry for registry in REGISTRIES}
    for kind, place in named:
        registries[kind].get(place)
