"""Substrings that mean exactly one unit: mergekit picks tensors by what their names contain."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from safeswap.errors import PlanError


def unit_filters(units: Mapping[str, str]) -> dict[str, list[str]]:
    """For every unit the substrings that all of its tensors' names contain and no other's does.

    Each is the start of a name up to and with a dot, as short as it may be: ``model.layers.1.mlp.``
    and never ``layers.1``, which is in ``layers.11`` as well. A name that no such start tells from
    other units' stands whole.

    Args:
        units: tensor → unit.

    Raises:
        PlanError: a name that is part of another unit's name cannot be told from it.

    >>> unit_filters({"layers.1.mlp.up.weight": "1.mlp", "layers.11.mlp.up.weight": "11.mlp"})
    {'1.mlp': ['layers.1.'], '11.mlp': ['layers.11.']}
    """
    holders: dict[str, set[str]] = {}
    for name, unit in units.items():
        for start in _starts(name):
            holders.setdefault(start, set()).add(unit)

    @cache
    def tells(start: str, unit: str) -> bool:
        if holders[start] != {unit}:
            return False
        return all(other == unit for name, other in units.items() if start in name)

    found: dict[str, list[str]] = {}
    for name, unit in units.items():
        chosen = next((start for start in _starts(name) if tells(start, unit)), name)
        if chosen == name:
            _refuse_within(name, units)
        given = found.setdefault(unit, [])
        if chosen not in given:
            given.append(chosen)
    return found


def _refuse_within(name: str, units: Mapping[str, str]) -> None:
    for other, unit in units.items():
        if name in other and unit != units[name]:
            raise PlanError(
                f"tensor {name!r} stands within the name {other!r} of another unit, so no "
                "substring means it alone. Use safeswap merge for this model."
            )


def _starts(name: str) -> list[str]:
    """A name up to each of its dots, the shortest first."""
    parts = name.split(".")
    return [".".join(parts[:count]) + "." for count in range(1, len(parts))]
