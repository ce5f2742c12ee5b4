"""One generic registry: lazy targets, aliases, wildcards, entry points, and errors that name the nearest match.

The four registries at the end are the only global state of the package. Their entries are small, torch-free
descriptions ("catalog" modules); what an entry's `target` points at is imported only when it is used.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, Protocol, TypeVar

from apd_bench.errors import UsageError, unknown_name


class Entry(Protocol):
    """What a registry stores: anything frozen with a canonical name and aliases."""

    @property
    def name(self) -> str:
        """The canonical name."""
        ...

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names for the same entry."""
        ...


T = TypeVar("T", bound=Entry)


def resolve_target(target: str) -> object:
    """The object behind a "package.module:attribute" string; raises UsageError when it cannot be imported."""
    module_name, _, attribute = target.partition(":")
    try:
        value: object = importlib.import_module(module_name)
        for part in attribute.split(".") if attribute else ():
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"Cannot load '{target}': {error}.") from error
    return value


@dataclass
class Registry(Generic[T]):
    """Named entries of one kind; built-ins come from `catalog`, plug-ins from the entry-point `group`."""

    kind: str
    catalog: str
    group: str
    list_command: str
    resolver: str = ""
    _entries: dict[str, T] = field(default_factory=dict)
    _origin: dict[str, str] = field(default_factory=dict)
    _aliases: dict[str, str] = field(default_factory=dict)
    _loaded: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def register(self, entry: T, *, origin: str = "this session") -> T:
        """Adds `entry` and returns it; raises UsageError when its name or an alias is already taken."""
        self._load()
        return self._add(entry, origin)

    def unregister(self, name: str) -> None:
        """Removes the entry `name`, for tests and interactive use."""
        entry = self._entries.pop(name)
        self._origin.pop(name, None)
        for alias in entry.aliases:
            self._aliases.pop(alias, None)

    def get(self, name: str) -> T:
        """The entry called `name` (canonical or alias, any case); raises UnknownName with the nearest match."""
        self._load()
        key = self.canonical(name)
        return self._entries[key]

    def canonical(self, name: str) -> str:
        """The canonical name behind `name`; names such as a local path or `hf-hub:` id are resolved on demand."""
        self._load()
        for candidate in (name.strip(), name.strip().lower()):
            if candidate in self._entries:
                return candidate
            if candidate in self._aliases:
                return self._aliases[candidate]
        if self.resolver:
            resolve: Callable[[str], T | None] = resolve_target(self.resolver)  # type: ignore[assignment]
            entry = resolve(name.strip())
            if entry is not None:
                if entry.name not in self._entries:
                    self._add(entry, "resolved from its name")
                return entry.name
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
        wildcards mean. Raises UnknownName when a pattern matches nothing.
        """
        known = universe if universe is not None else self.names()
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

    def __iter__(self) -> Iterator[T]:
        self._load()
        return iter(self._entries.values())

    def _match(self, text: str, known: list[str]) -> list[str]:
        if text.lower() == "all":
            return list(known)
        if any(sign in text for sign in "*?["):
            found = [name for name in known if fnmatchcase(name, text)]
            if not found:
                raise unknown_name(self.kind, text, known, command=self.list_command)
            return found
        return [self.canonical(text)]

    def _add(self, entry: T, origin: str) -> T:
        with self._lock:
            for name in (entry.name, *entry.aliases):
                holder = entry.name if name in self._entries else self._aliases.get(name)
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

    def _load(self) -> None:
        if self._loaded:
            return
        with self._lock:
            self._loaded = True
            for entry in resolve_target(f"{self.catalog}:builtin")():  # type: ignore[operator]
                self._add(entry, "built-in")
            for point in entry_points(group=self.group):
                self._add_plugin(point)

    def _add_plugin(self, point: EntryPoint) -> None:
        distribution = point.dist.name if point.dist is not None else point.value
        origin = f"{distribution} {point.dist.version}" if point.dist is not None else distribution
        try:
            loaded = point.load()
        except Exception as error:
            raise UsageError(
                f"The plug-in '{point.name}' of {origin} cannot be loaded: {type(error).__name__}: {error}.",
                hint=f"Mend or uninstall it: pip uninstall {distribution}",
            ) from error
        self._add(loaded, origin)


def _registries() -> tuple[Registry, Registry, Registry, Registry]:  # type: ignore[type-arg]
    def make(kind: str, room: str, resolver: str = "") -> Registry:  # type: ignore[type-arg]
        return Registry(
            kind=kind,
            catalog=f"apd_bench.{room}.catalog",
            group=f"apd_bench.{kind}s",
            list_command=f"apd-bench list {kind}s",
            resolver=resolver,
        )

    return (
        make("backbone", "backbones", "apd_bench.backbones.catalog:resolve"),
        make("method", "methods", "apd_bench.methods.catalog:resolve"),
        make("dataset", "data", "apd_bench.data.catalog:resolve"),
        make("attack", "attacks", "apd_bench.attacks.catalog:resolve"),
    )


BACKBONES, METHODS, DATASETS, ATTACKS = _registries()
