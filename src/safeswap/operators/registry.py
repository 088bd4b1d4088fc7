"""The table of all operators: each is registered by its own file, or by a user's module.

@operator
class Halved(Operator):
    name = "halved"
    ...
"""

from __future__ import annotations

from typing import TypeVar

from safeswap.errors import PlanError, nearest
from safeswap.operators.base import Operator
from safeswap.registry import Registry

Kind = TypeVar("Kind", bound=type[Operator])

OPERATORS: Registry[Operator] = Registry("operator")
"""Every operator by its name, in the order in which they are listed."""


def operator(kind: Kind) -> Kind:
    """Register a subclass of :class:`Operator` under its ``name``.

    Raises:
        ConfigError: another module has an operator of this name.
    """
    OPERATORS.add(kind.name, kind(), kind)
    return kind


def find_operator(name: str, where: str) -> Operator:
    """The operator of a name.

    Raises:
        PlanError: there is none; names the nearest.
    """
    if name not in OPERATORS:
        raise PlanError(f"{where}: unknown operator {name!r}{nearest(name, OPERATORS)}")
    return OPERATORS[name]
