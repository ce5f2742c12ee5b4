"""Leaderboards: stored records in, tables with evidence out. Nothing here imports torch or touches a model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apd_bench.leaderboard.boards import check_boards as check_boards
    from apd_bench.leaderboard.boards import collect as collect
    from apd_bench.leaderboard.boards import write_boards as write_boards
    from apd_bench.leaderboard.terminal import render_terminal as render_terminal

_WHERE = {"check_boards": "boards", "collect": "boards", "render_terminal": "terminal", "write_boards": "boards"}
__all__ = ["check_boards", "collect", "render_terminal", "write_boards"]


def __getattr__(name: str) -> Any:
    """Resolves the public functions on first use: scipy and pandas are not loaded by `apd-bench --help`."""
    if name in _WHERE:
        return getattr(import_module(f"apd_bench.leaderboard.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'apd_bench.leaderboard' has no attribute '{name}'")
