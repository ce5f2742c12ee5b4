"""From "pgd(steps=100)" to an AttackSpec: names and options are checked here, before any time is spent. Torch-free."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from apd_bench.attacks.catalog import AttackEntry, Configured
from apd_bench.core.errors import IncompatibleChoice, MissingPrerequisite, UsageError, unknown_name
from apd_bench.core.registry import ATTACKS
from apd_bench.core.specs import AttackSpec, ThreatModel, format_eps, parse_call, parse_eps


def parse_attack(text: str) -> AttackSpec:
    """The attack that `text` names: canonical name, only the options that differ from the defaults, code version.

    Raises UnknownName for an attack or option that does not exist, UsageError for a value that it cannot take.
    """
    name, options = parse_call(text)
    entry: AttackEntry = ATTACKS.get(name)
    return spec_of(entry, options)


def spec_of(entry: AttackEntry, options: Mapping[str, Any]) -> AttackSpec:
    """The spec of an attack with checked options."""
    checked = canonical_options(entry, options)
    return AttackSpec(name=entry.name, options=checked, version=entry.version, code=entry.code)


def canonical_options(entry: Configured, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options`, each checked against the entry and in its default's type, without those equal to their default."""
    checked: dict[str, Any] = {}
    for key in sorted(options):
        if key in ("eps", "epsilon", "norm"):
            raise UsageError(
                f"The {'norm' if key == 'norm' else 'budget'} is no option of {entry.name}: all attacks have the same.",
                hint="Write --set norm=L2." if key == "norm" else f"Write --eps {_budget(options[key])}.",
            )
        if entry.open_options:
            checked[key] = options[key]
            continue
        if key not in entry.defaults:
            raise unknown_name(f"option of {entry.name}", key, entry.defaults, command=f"apd-bench show {entry.name}")
        value = _check(entry, key, options[key])
        if value != entry.defaults[key]:
            checked[key] = value
    return checked


def all_options(spec: AttackSpec) -> dict[str, Any]:
    """The options that the attack's function is called with: defaults, overlaid with the spec's, and what is fixed."""
    entry: AttackEntry = ATTACKS.get(spec.name)
    return {**options_of(spec, entry, "--attacks"), **entry.fixed}


def options_of(spec: AttackSpec, entry: Configured, flag: str) -> dict[str, Any]:
    """The defaults of `entry`, overlaid with those of `spec`; UsageError where its code is not that of the spec."""
    if spec.code != entry.code:
        raise UsageError(
            f"The code of '{spec.name}' has the digest {entry.code}, not {spec.code} as it was planned or recorded.",
            hint=f"Give the file that defines it: {flag} FILE.py:NAME (or install the plug-in).",
        )
    return {**entry.defaults, **canonical_options(entry, spec.options)}


def entry_within(spec: AttackSpec, threat: ThreatModel) -> AttackEntry:
    """The entry of an attack that can run within `threat`.

    Raises IncompatibleChoice for a norm that it does not know, MissingPrerequisite for a package that is missing.
    """
    entry: AttackEntry = ATTACKS.get(spec.name)
    if threat.norm not in entry.norms:
        known = ", ".join(entry.norms)
        raise IncompatibleChoice(f"{entry.name} does not know the norm {threat.norm} (it knows {known}).")
    if entry.extra is not None and find_spec(entry.extra) is None:
        raise MissingPrerequisite(
            f"{entry.name} needs the package {entry.extra}.", hint=f"pip install 'apd-bench[{entry.extra}]'"
        )
    return entry


def _check(entry: Configured, key: str, value: Any) -> Any:
    default = entry.defaults[key]
    if isinstance(default, tuple):
        items = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
        if not items:
            raise _refuse(entry, key, value, "a list of names")
        return tuple(_choose(entry, key, item) for item in items)
    if isinstance(default, str):
        return _choose(entry, key, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refuse(entry, key, value, "a number")
    if isinstance(default, int):
        if not 1 <= value <= sys.float_info.max or value != int(value):
            raise _refuse(entry, key, value, "a whole number of at least 1")
        return int(value)
    if not 0 < value <= sys.float_info.max:
        raise _refuse(entry, key, value, "a number above 0")
    return float(value)


def _budget(value: Any) -> str:
    try:
        return format_eps(parse_eps(value))
    except UsageError:
        return "8/255"


def _choose(entry: Configured, key: str, value: Any) -> str:
    allowed = entry.choices.get(key, (value,))
    if not isinstance(value, str) or value not in allowed:
        raise unknown_name(f"{key} of {entry.name}", str(value), allowed)
    return value


def _refuse(entry: Configured, key: str, value: Any, wanted: str) -> UsageError:
    return UsageError(
        f"{entry.name}({key}={value!r}): {key} has to be {wanted}.",
        hint=f"The default is {key}={entry.defaults[key]!r}.",
    )
