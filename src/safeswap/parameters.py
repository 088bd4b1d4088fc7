"""Parameters of selectors and operators: their kinds, limits and defaults, and how texts are read.

>>> density = Parameter("density", 0.2, "what is kept", low=0, high=1, open_low=True)
>>> density.limits
'a number in (0, 1]'
>>> density.parse("5e-1")
0.5
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from safeswap.errors import PlanError, nearest

Value = float | int | bool | str
_KINDS: Mapping[type, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}
_WORDS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a selector or an operator.

    Attributes:
        name: as plans, Python and the command line call it.
        default: its value when it is not given; None where the method works it out.
        doc: one line for the reader.
        kind: ``float``, ``int``, ``bool``, ``str``, or ``Path`` for a file or folder (its value is
            a text; relative ones count from the plan's own folder).
        low, high: limits; allowed themselves unless ``open_low`` or ``open_high``.
        choices: the words allowed, for text.
        share: it is a share or a difference of shares: a text may give it in per cent or points.
    """

    name: str
    default: Value | None
    doc: str
    kind: type = float
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    open_low: bool = False
    open_high: bool = False
    share: bool = False

    @property
    def is_path(self) -> bool:
        """Whether it names a file or folder."""
        return self.kind is Path

    @property
    def limits(self) -> str:
        """What it may be, in words: ``from 0 to 1``, ``a number in (0, 1]``, ``blend | base``."""
        if self.choices:
            return " | ".join(self.choices)
        if math.isinf(self.low) and math.isinf(self.high):
            return _KINDS[self.kind]
        if self.open_low or self.open_high or math.isinf(self.low):
            left = "(" if self.open_low or math.isinf(self.low) else "["
            right = ")" if self.open_high or math.isinf(self.high) else "]"
            return f"{_KINDS[self.kind]} in {left}{self.low:g}, {self.high:g}{right}"
        ends = f"{self.low:g} or more"
        if not math.isinf(self.high):
            ends = f"from {self.low:g} to {self.high:g}"
        return f"{ends}, a whole number" if self.kind is int else ends

    def check(self, value: Any, where: str) -> Any:
        """The value in the parameter's kind, when it is within the limits.

        Args:
            where: the parameter as whoever gave the value knows it: ``--tau``, or
                ``plan.yaml: unit 3.mlp: ties: density``.

        Raises:
            PlanError: says where, the value, and what it may be.
        """
        if value is None and self.default is None:
            return None
        if self.choices and value not in self.choices:
            raise PlanError(f"{where} {value!r} is unknown{nearest(value, self.choices)}")
        if self.kind in (bool, str, Path):
            wanted = bool if self.kind is bool else str
            return value if isinstance(value, wanted) else self._refuse(value, where)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._refuse(value, where)
        if not self._inside(value) or (self.kind is int and value != int(value)):
            self._refuse(value, where)
        return self.kind(value)

    def parse(self, text: str, where: str) -> Any:
        """The value that a text on the command line stands for; limits are for :meth:`check`.

        Raises:
            PlanError: it is not of the parameter's kind.
        """
        if self.kind in (str, Path):
            return text
        if self.kind is bool:
            return _WORDS[text.lower()] if text.lower() in _WORDS else self._refuse(text, where)
        value = read_share(text) if self.share else read_value(text)
        if isinstance(value, (bool, str)) or (self.kind is int and isinstance(value, float)):
            self._refuse(text, where)
        return self.kind(value)

    def _inside(self, value: float) -> bool:
        """Whether a number is finite and between the limits; NaN is not."""
        if isinstance(value, int) and self.kind is float and abs(value) > sys.float_info.max:
            return False  # more than a float can hold
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and value not in (math.inf, -math.inf)

    def _refuse(self, value: Any, where: str) -> NoReturn:
        finite = " and finite" if self.limits == _KINDS[float] else ""
        raise PlanError(f"{where} {value} is not valid: it must be {self.limits}{finite}.")


def resolve_settings(
    parameters: Sequence[Parameter],
    given: Mapping[str, Any],
    where: str,
    spelled: Callable[[str], str],
) -> dict[str, Any]:
    """Every parameter's value: those given, checked, and the defaults of the others.

    Args:
        where: whose parameters they are, as it opens a message: ``--method band``.
        spelled: from a parameter's name to how whoever gave it writes it (:meth:`Parameter.check`).

    Raises:
        PlanError: an unknown name (with the nearest), a value out of its limits.
    """
    known = [parameter.name for parameter in parameters]
    for name in given:
        if name not in known:
            has = nearest(name, known) if known else "; it has no parameters."
            raise PlanError(f"{where} has no parameter {name!r}{has}")
    return {p.name: p.check(given.get(p.name, p.default), spelled(p.name)) for p in parameters}


_UNITS = ("%", "points", "point")


def read_share(text: str) -> Value:
    """A share as text: a fraction, ``0.001``, or the same in the tables' unit, ``0.1%``.

    >>> read_share("0.1%"), read_share("0.1 points"), read_share("0.001")
    (0.001, 0.001, 0.001)
    """
    unit = next((unit for unit in _UNITS if text.strip().endswith(unit)), "")
    value = read_value(text.strip().removesuffix(unit).strip())
    if not unit or isinstance(value, (bool, str)):
        return read_value(text)
    return float(f"{value / 100:.15g}")


def read_value(text: str) -> Value:
    """What a text says: true or false, a whole number, a number, or else itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
