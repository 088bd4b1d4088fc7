"""mergekit's parameters, evaluated for one tensor as mergekit 0.1.5 does.

A setting is a value, a list of values that is stretched over the layers, or a list of
``{filter, value}`` of which the first whose filter the tensor's name contains holds. It is looked
for with the model first, then with the slice, then with the whole configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safeswap.errors import PlanError
from safeswap.io.keys import check_keys

Settings = tuple[str, Mapping[str, Any]]
"""Where in the file (for messages) → parameter → setting."""


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor as a setting sees it: its name, and how far up the slice its layer is (0 to 1)."""

    name: str
    t: float


def evaluate(setting: Any, place: Place, where: str) -> float | bool | None:
    """The value for a tensor, or None when no filter matches.

    Raises:
        PlanError: not a number, or of no form that mergekit knows; names the key.
    """
    if isinstance(setting, Mapping):
        setting = [setting]
    if not isinstance(setting, list):
        return _number(setting, where)
    if setting and all(isinstance(entry, Mapping) for entry in setting):
        return _conditional(setting, place, where)
    if not setting:
        return None
    values = [_number(entry, f"{where}[{n}]") for n, entry in enumerate(setting)]
    at = place.t * (len(values) - 1)
    low = int(at)
    high = min(len(values) - 1, low + 1)
    return (1 - (at - low)) * values[low] + (at - low) * values[high]


def _conditional(entries: Sequence[Any], place: Place, where: str) -> float | bool | None:
    for number, entry in enumerate(entries):
        check_keys(entry, ("filter", "value"), f"{where}[{number}]", PlanError)
        chosen = entry.get("filter")
        if chosen is None or chosen == "*" or str(chosen) in place.name:
            return evaluate(entry.get("value"), place, f"{where}[{number}].value")
    return None


def _number(value: Any, where: str) -> float | bool:
    try:
        if isinstance(value, bool):
            return value
        return float(value)  # YAML reads 1e-3 as text; mergekit makes a number of it
    except (OverflowError, TypeError, ValueError):
        raise PlanError(f"{where}: {value!r} is not a number. Give one.") from None


def resolve(
    name: str, scopes: Sequence[Settings], place: Place, default: float | bool | None = None
) -> float | bool:
    """A parameter's value for a tensor from the first scope that has one.

    Raises:
        PlanError: no scope has it and there is no default; names the scopes.
    """
    for where, settings in scopes:
        if name in settings:
            found = evaluate(settings[name], place, f"{where}.{name}")
            if found is not None:
                return found
    if default is None:
        places = " nor ".join(where for where, _ in scopes)
        raise PlanError(f"neither {places} gives {name} for {place.name}. Add it.")
    return default
