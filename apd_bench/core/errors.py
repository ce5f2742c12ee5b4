"""Errors that a person can act on: one message, one hint, one exit code, no traceback."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

from apd_bench.core.text import printable

EXIT_DONE = 0
EXIT_CELLS_FAILED = 1
EXIT_USAGE = 2
EXIT_REGRESSION = 3
EXIT_INTERRUPTED = 130
_ENDLESS = re.compile(r"(\S{200})\S{200,}")  # a word that nobody wants to see whole
_LISTED, _NEAREST = 24, 8  # names: up to so many are all listed, of more only the nearest ones


class UserError(Exception):
    """A mistake or missing prerequisite on the user's side; printed as one line, and `exit_code` is returned."""

    exit_code: int = EXIT_USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message, self.hint = (printable(_ENDLESS.sub(r"\1…", text)) for text in (message, hint))
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class UsageError(UserError):
    """An argument, option or file that cannot be understood."""


class UnknownName(UsageError):
    """A name that no registry entry carries."""


class MissingPrerequisite(UserError):
    """Something outside the program is missing: data, weights, an optional package, a permission."""


class CorruptFile(UserError):
    """A file that exists but cannot be trusted: wrong digest, torn, not the format it claims."""


class OtherSchema(UserError):
    """A sound file that another version of this program wrote: it is left as it is, and nothing is measured anew."""


class IncompatibleChoice(UserError):
    """Two valid choices that do not go together, such as a method and a backbone without what it needs."""


class RegressionFound(UserError):
    """Measured values differ from the stored expectations, or a committed board is stale."""

    exit_code = EXIT_REGRESSION


def first_line(error: BaseException) -> str:
    """What an exception says, in one line without control characters; its type where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    text = next((line for line in lines if line), "") or type(error).__name__
    return "".join(letter for letter in text if letter.isprintable())


def unknown_name(kind: str, asked: str, available: Iterable[str], *, command: str = "") -> UnknownName:
    """The error for a name that does not exist: what was asked, what exists, the nearest match, where to look."""
    names = sorted(available)
    near = nearest(asked, names)
    guess = f" Did you mean '{near}'?" if near else ""
    listing = f"Available: {', '.join(names) or 'none'}."
    if len(names) > _LISTED:
        like = sorted(names, key=lambda name: -_likeness(asked, name))[:_NEAREST]
        listing = f"The nearest are {', '.join(like)} ({len(names)} in all)."
    hint = f"See: {command}" if command else ""
    return UnknownName(f"Unknown {kind} '{asked}'.{guess} {listing}", hint=hint)


def nearest(asked: str, names: Iterable[str]) -> str | None:
    """The name most like `asked`, or None when nothing comes near; swapped letters count as near (adp is apd)."""
    best = max(names, key=lambda name: _likeness(asked, name), default=None)
    return best if best is not None and _likeness(asked, best) >= 0.6 else None


def _likeness(asked: str, name: str) -> float:
    one, other = asked.lower(), name.lower()
    in_order = SequenceMatcher(None, one, other).ratio()
    any_order = SequenceMatcher(None, sorted(one), sorted(other)).ratio()
    return (in_order + any_order) / 2
