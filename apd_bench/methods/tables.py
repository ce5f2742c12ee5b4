"""The layout of a recipe: its sections, the fields of the loop and of the inner attack, and how tables are overlaid."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apd_bench.core.errors import CorruptFile, UsageError, unknown_name
from apd_bench.core.files import read_text
from apd_bench.core.specs import one_of
from apd_bench.core.toml import tomllib

Sections = dict[str, Any]
SECTIONS = ("learner", "objective", "inner_attack", "training")

# What the training loop reads from [training]; a recipe names what differs, and what its paper states. "last_batch" is
# an epoch's batch that is not full: Dassl drops it where there is a full one.
TRAINING: Mapping[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.002,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "warmup_lr": 1e-5,
    "epochs": 50,
    "batch_size": 32,
    "augment": "none",
    "clip_norm": 0.0,
    "last_batch": "keep",
}
# The inner attack: `step` is in units of eps; `start` is where it begins inside the ball.
INNER_ATTACK: Mapping[str, Any] = {"loss": "ce", "steps": 2, "step": 1.0, "start": "uniform"}
DEFAULTS = {"training": TRAINING, "inner_attack": INNER_ATTACK}

_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "constant"),
    "augment": ("none", "crop_flip"),
    "last_batch": ("keep", "drop"),
    "loss": ("ce", "stable-ce", "margin", "dlr", "kl", "feature_kl"),
    "start": ("uniform", "uniform-positive", "gaussian", "none"),
}


def read_toml(path: str | Path) -> Sections:
    """The tables of a TOML file; raises UsageError when it is missing and CorruptFile when it does not parse."""
    try:
        table: Sections = tomllib.loads(read_text(Path(path)))
    except OSError as error:
        raise UsageError(f"Cannot read the recipe '{path}': {error.strerror or error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise CorruptFile(f"'{path}' is not valid TOML: {error}.") from error
    return table


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Sections:
    """The sections of `base` with those of `changes` laid over; another `kind` replaces its whole section."""
    merged: Sections = {section: dict(base[section]) for section in SECTIONS if section in base}
    for section in SECTIONS:
        if section in changes:
            given = dict(changes[section])
            old = merged.get(section, {})
            replaced = "kind" in given and "kind" in old and given["kind"] != old["kind"]
            merged[section] = given if replaced else old | given
    return merged


def override(base: Mapping[str, Any], changes: Mapping[str, Any], method: str) -> Sections:
    """Like `overlay` for what a suite or the command line sets: it may change only options that `base` has.

    Raises UnknownName for a section or option that does not exist. A method that trains nothing ignores overrides of
    its training, so that one suite can hold all methods.
    """
    for section, options in changes.items():
        if section not in SECTIONS:
            raise unknown_name("recipe section", section, SECTIONS, command=f"apd-bench show {method}")
        if not isinstance(options, Mapping):
            raise UsageError(f"'{section}' is a table of the recipe.", hint=f"Write {section}.OPTION = VALUE.")
        known = {*base.get(section, ()), *DEFAULTS.get(section, ())}
        for name, value in options.items():
            if section in base and name not in known:
                raise unknown_name(f"{section} option of '{method}'", name, known, command=f"apd-bench show {method}")
            check_kind(f"{section}.{name}", value, base.get(section, {}).get(name))
    return overlay(base, {section: options for section, options in changes.items() if section in base})


def check_kind(option: str, value: Any, before: Any) -> None:
    """Raises UsageError where `value` is of another kind than the value that stood there before (None: any kind)."""
    for kinds, what in (((bool,), "true or false"), ((int, float), "a number"), ((str,), "text")):
        if isinstance(before, kinds):
            if not isinstance(value, kinds) or (isinstance(value, bool) and what == "a number"):
                raise UsageError(f"{option} = {value!r} is not {what}, such as {before!r}.")
            return


def checked(section: str, given: Mapping[str, Any]) -> Sections:
    """`given` completed with the defaults of the section; raises UsageError for a value out of its range."""
    defaults = DEFAULTS[section]
    for name in given:
        if name not in defaults:
            raise unknown_name(f"{section} option", name, defaults)
    table = dict(defaults) | dict(given)
    for name, value in table.items():
        if name in _CHOICES:
            one_of(f"{section}.{name}", value, _CHOICES[name])
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise UsageError(f"{section}.{name} = {value!r} is not a number of 0 or more.")
        elif isinstance(defaults[name], int) and not isinstance(value, int):
            raise UsageError(f"{section}.{name} = {value!r} is not a whole number.")
    for name in ("epochs", "batch_size"):
        if table.get(name, 1) < 1:
            raise UsageError(f"training.{name} = {table[name]} leaves nothing to train.")
    if table.get("last_batch") == "keep":  # as if nothing were said, for the sake of the identity
        del table["last_batch"]
    return table


def numbers(table: Mapping[str, Any]) -> Iterator[str]:
    """The dotted names of everything a recipe states, `learner.tokens`, `training.lr`, ...: what needs a source."""
    for section in SECTIONS:
        for name in table.get(section, {}):
            if name != "kind":
                yield f"{section}.{name}"
