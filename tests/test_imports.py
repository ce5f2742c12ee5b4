"""Who may import whom (the design's rooms), and which parts must answer without importing torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import apd_bench

PACKAGE = Path(apd_bench.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TORCH_FREE = [
    "apd_bench", "apd_bench.errors", "apd_bench.registry", "apd_bench.specs", "apd_bench.identity",
    "apd_bench.resources",
    "apd_bench.files", "apd_bench.options", "apd_bench.runs", "apd_bench.environment",
    "apd_bench.records", "apd_bench.store",
    "apd_bench.published", "apd_bench.regression", "apd_bench.suites",
    "apd_bench.leaderboard", "apd_bench.cli", "apd_bench.runner.plan", "apd_bench.backbones.catalog",
    "apd_bench.methods.catalog", "apd_bench.methods.recipes", "apd_bench.data.catalog", "apd_bench.attacks.catalog",
    "apd_bench.attacks.parse",
]  # fmt: skip
HEAVY = {"torch", "open_clip", "torchvision", "pyautoattack", "torchattacks", "ray"}
# What each room may import of its own package at module level; a room not listed may import anything.
FOUNDATION = {
    *("bounds", "errors", "options", "registry", "specs", "identity", "resources", "files", "schemas"),
    *("targets", "text", "toml", "whereabouts"),
}
ALLOWED = {
    "errors": set(),
    "identity": set(),
    "options": {"errors"},
    "schemas": {"errors"},
    "bounds": set(),
    "text": set(),
    "toml": set(),
    "npz": {"bounds"},
    "parts": {"specs", "identity", "targets"},
    "files": {"errors"},
    "resources": set(),
    "specs": {"errors", "identity"},
    "targets": {"errors"},
    "whereabouts": {"files"},
    "registry": {"errors", "targets", "whereabouts"},
    "records": FOUNDATION | {"npz", "parts"},
    "store": FOUNDATION | {"records", "npz", "parts"},
    "leaderboard": FOUNDATION | {"records", "store", "published", "regression", "methods"},
    "backbones": FOUNDATION,
    "prompts": FOUNDATION | {"backbones"},
    "data": FOUNDATION,
    "classifier": FOUNDATION | {"backbones", "prompts"},
    "attacks": FOUNDATION | {"classifier", "records", "npz"},
    "methods": FOUNDATION | {"backbones", "prompts", "classifier", "attacks", "descent", "training", "states", "data"},
    "states": FOUNDATION | {"records", "parts", "prompts", "backbones", "methods"},
    "descent": FOUNDATION | {"backbones", "prompts", "classifier", "methods", "data"},
    "training": FOUNDATION | {"backbones", "prompts", "classifier", "methods", "descent", "data", "states", "records"},
    "evaluation": FOUNDATION | {"classifier", "attacks", "data", "records"},
}
THIRD_PARTY_ROOMS = {
    "open_clip": {"backbones"},
    "pyautoattack": {"attacks"},
    "torchattacks": {"attacks"},
    "ray": {"runner"},
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Every imported module with whether it happens at module level (a TYPE_CHECKING block does not count)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.append((child.module, top))
                found.extend(
                    (f"{child.module}.{alias.name}", top) for alias in child.names if child.module == "apd_bench"
                )
            visit(child, top and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    visit(tree, True)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_lies_below_it(path):
    room = room_of(path)
    for name, top in imports_of(path):
        parts = name.split(".")
        if parts[0] == "apd_bench" and len(parts) > 1 and top and room in ALLOWED:
            assert parts[1] in ALLOWED[room] | {room, "__version__"}, f"{room} imports {name}"
        if parts[0] in THIRD_PARTY_ROOMS:
            assert room in THIRD_PARTY_ROOMS[parts[0]] | {"doctor"}, f"{room} imports {name}"


def test_light_modules_do_not_import_torch():
    code = f"""
import importlib, sys
for name in {TORCH_FREE!r}:
    importlib.import_module(name)
    heavy = sorted({HEAVY!r} & set(sys.modules))
    assert not heavy, f"{{name}} imports {{heavy}}"
from apd_bench.registry import ATTACKS, BACKBONES, DATASETS, METHODS
for registry in (ATTACKS, BACKBONES, DATASETS, METHODS):
    assert registry.names(), registry.kind
assert not {HEAVY!r} & set(sys.modules), "a catalog imports torch"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
