"""The storeys: a room imports only rooms below it, no imports run in a circle, light rooms load no torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import apd_bench

PACKAGE = Path(apd_bench.__file__).parent
STOREYS = [storey.split() for storey in (
    "core", "records suites", "backbones data", "attacks", "prompts", "methods defences", "evaluation",
    "training leaderboard", "runner", "tuning", "api", "cli",
)]  # fmt: skip
LEVEL = {room: level for level, storey in enumerate(STOREYS) for room in storey}
ROOT = {"__init__": "api", "__main__": "cli", "api": "api", "plugin": "api"}  # the root's modules and their rooms
TORCH_FREE = (
    "apd_bench", "apd_bench.plugin", "apd_bench.cli", "apd_bench.leaderboard", "apd_bench.suites",
    "apd_bench.runner.plan", "apd_bench.runner.run", "apd_bench.backbones.catalog", "apd_bench.methods.catalog",
    "apd_bench.data.catalog", "apd_bench.attacks.catalog", "apd_bench.attacks.parse", "apd_bench.defences.parse",
)  # fmt: skip
HEAVY = {"torch", "open_clip", "torchvision", "pyautoattack", "torchattacks", "ray"}
THIRD_PARTY = {"open_clip": "backbones", "pyautoattack": "attacks", "torchattacks": "attacks", "ray": "runner"}


def modules_of(package):
    """Every module by its dotted name."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def room_of(name):
    """The room of a module."""
    parts = name.split(".")
    return ROOT.get(parts[1], parts[1]) if len(parts) > 1 else ROOT["__init__"]


def imports_of(name, path, known):
    """What a module imports anywhere, in functions and for types too; of the package, modules by their full names."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            base = ".".join([*package[: len(package) + 1 - node.level], *([node.module] if node.module else [])])
            source = base if node.level else node.module or ""
            for alias in node.names:
                exact = f"{source}.{alias.name}"
                yield exact if exact in known else source


def faults(package):
    """What is wrong with the plan of the house: unlisted rooms, imports that do not run down, circles."""
    known = modules_of(package)
    ours = {
        name: {target for target in imports_of(name, path, known) if target.split(".")[0] == "apd_bench"}
        for name, path in known.items()
    }
    told = [f"{room} is in no storey" for room in sorted({room_of(name) for name in known} - LEVEL.keys())]
    for name, targets in ours.items():
        room = room_of(name)
        for target in sorted(targets):
            other = room_of(target)
            if room != other and LEVEL.get(other, 0) >= LEVEL.get(room, 0):
                told.append(f"{name} imports {target}, which does not stand below it")
    return told + [f"{' and '.join(circle)} import each other" for circle in circles(ours)]


def circles(arrows):
    """The groups of modules each of which reaches every other one of its group."""
    reached = {}
    for name in arrows:
        todo, seen = [name], set()
        while todo:
            for target in arrows.get(todo.pop(), set()) - seen:
                seen.add(target)
                todo.append(target)
        reached[name] = seen
    groups = {tuple(sorted({other for other in seen if name in reached.get(other, ())} | {name}))
              for name, seen in reached.items() if name in seen}  # fmt: skip
    return [list(group) for group in sorted(groups) if len(group) > 1]


def test_imports_run_down_and_in_no_circle():
    assert faults(PACKAGE) == []


@pytest.mark.parametrize(("files", "fault"), [
    ({"core/a.py": "def late():\n    from apd_bench.cli import b\n", "cli/b.py": ""},
     "apd_bench.core.a imports apd_bench.cli.b, which does not stand below it"),
    ({"data/a.py": "from ..backbones import b\n", "backbones/b.py": ""},
     "apd_bench.data.a imports apd_bench.backbones.b, which does not stand below it"),
    ({"core/a.py": "import apd_bench\n"}, "apd_bench.core.a imports apd_bench, which does not stand below it"),
    ({"core/a.py": "from apd_bench.core.b import x\n", "core/b.py": "def f():\n    from apd_bench.core import a\n"},
     "apd_bench.core.a and apd_bench.core.b import each other"),
    ({"attic/a.py": ""}, "attic is in no storey"),
    ({"helpers.py": ""}, "helpers is in no storey"),
])  # fmt: skip
def test_what_is_planted_is_found(tmp_path, files, fault):
    for name, content in files.items():
        path = tmp_path / "apd_bench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert faults(tmp_path / "apd_bench") == [fault]


def test_the_root_holds_rooms_and_the_map_of_contributing_names_them_from_the_top():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(ROOT)
    assert len(LEVEL) <= 17
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")
    rooms = [re.findall(r"`apd_bench/(\w+)(?:/|\.py)`", line.split(" | ")[0]) for line in text.splitlines()
             if line.startswith("| `apd_bench/")]  # fmt: skip
    named = [room for row in rooms for room in row]
    assert sorted(named) == sorted({*LEVEL, *ROOT} - {"__init__", "__main__"})
    levels = [LEVEL[ROOT.get(room, room)] for room in named]
    assert levels == sorted(levels, reverse=True)


def test_libraries_are_imported_by_the_rooms_that_adapt_them():
    known = modules_of(PACKAGE)
    users = {(name.split(".")[0], room_of(module)) for module, path in known.items()
             for name in imports_of(module, path, known)}  # fmt: skip
    found = {(library, room) for library, room in users if library in THIRD_PARTY}
    assert found and found <= set(THIRD_PARTY.items())


def test_light_modules_do_not_import_torch():
    code = f"""
import importlib, sys
for name in {TORCH_FREE!r}:
    importlib.import_module(name)
    heavy = sorted({HEAVY!r} & set(sys.modules))
    assert not heavy, f"{{name}} imports {{heavy}}"
from apd_bench.core.registry import REGISTRIES
for registry in REGISTRIES:
    assert [registry.get(name) for name in registry.names()], registry.kind
assert not {HEAVY!r} & set(sys.modules), "a catalog imports torch"
for name in {sorted(name for name in modules_of(PACKAGE) if room_of(name) in ("core", "records", "suites"))!r}:
    importlib.import_module(name)
assert not {HEAVY!r} & set(sys.modules), "core, records or suites import torch"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
