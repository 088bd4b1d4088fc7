"""What a selector is, and the table of all of them: name, source, parameters with their limits.

A selector is a function from a profile to a row per unit. The decorator registers it:

    @selector("halves", summary="Safety above the middle.", source="an example")
    def halves(profile, language):
        return {unit: Row(0.5, 0.5) for unit in profile.units}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from safeswap.errors import PlanError, nearest

OPTIONS = ("by", "tau", "tau_relative", "alpha", "norms", "outside")
"""Parameters that have an option of their own on the command line; the others go by ``--set``."""
_KINDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
}
_WORDS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Row:
    """What a selector says about one unit.

    Attributes:
        safety, language: weights of the two experts' task vectors.
        shares: the experts' shares (safety, language) that led to them, where some did.
        operator: how the task vectors are joined, as a plan's file says it; None as in the plan.
    """

    safety: float
    language: float
    shares: tuple[float, float] | None = None
    operator: str | Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        default: its value when it is not given; None where the method works it out.
        doc: one line for the reader.
        kind: ``float``, ``int``, ``bool`` or ``str``.
        low, high: limits, both allowed themselves.
        choices: the words allowed, for text.
    """

    name: str
    default: float | int | bool | str | None
    doc: str
    kind: type = float
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """How it is written on the command line."""
        own = self.name in OPTIONS
        return f"--{self.name.replace('_', '-')}" if own else f"--set {self.name}"

    @property
    def limits(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return " | ".join(self.choices)
        if self.low == -math.inf and self.high == math.inf:
            return _KINDS[self.kind]
        if self.high == math.inf:
            return f"{self.low:g} or more"
        return f"from {self.low:g} to {self.high:g}"

    def check(self, value: Any) -> Any:
        """The value, when it is of the right kind and within the limits.

        Raises:
            PlanError: names the option, the value, and what it may be.
        """
        if value is None and self.default is None:
            return None
        if self.choices and value not in self.choices:
            raise PlanError(f"{self.option} {value!r} is unknown{nearest(value, self.choices)}")
        if self.kind in (bool, str):
            return value if isinstance(value, self.kind) else self._refuse(value)
        allowed = int if self.kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            self._refuse(value)
        if not self.low <= value <= self.high or math.isinf(value):
            self._refuse(value)
        return value

    def parse(self, text: str) -> Any:
        """The value that a text on the command line stands for; limits are for :meth:`check`.

        Raises:
            PlanError: it is not of the parameter's kind.
        """
        if self.kind is str:
            return text
        if self.kind is bool:
            return _WORDS[text.lower()] if text.lower() in _WORDS else self._refuse(text)
        try:
            return self.kind(text)
        except ValueError:
            self._refuse(text)

    def _refuse(self, value: Any) -> NoReturn:
        finite = "" if self.limits != _KINDS[float] else " and finite"
        raise PlanError(f"{self.option} {value} is not valid: it must be {self.limits}{finite}.")


Fill = Callable[..., Mapping[str, Row]]
"""``fill(profile, language, **settings)`` → a row for every unit of the profile."""
Resolve = Callable[[dict[str, Any]], dict[str, Any]]
"""Settles what parameters say together, before any profile is read."""
Fits = Callable[[Sequence[str], Mapping[str, Any]], None]
"""``fits(units, settings)`` refuses settings that a model of these units cannot have, before its
weights are read; ``fill`` refuses them too."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A registered method; ``fill`` is the function itself."""

    name: str
    summary: str
    source: str
    parameters: tuple[Parameter, ...]
    fill: Fill
    resolve: Resolve
    fits: Fits

    def resolve_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its value: those given, checked, and the defaults of the others.

        Raises:
            PlanError: an unknown parameter (says which method has it, or the nearest name), a
                value out of its limits, or parameters that exclude each other.
        """
        names = [parameter.name for parameter in self.parameters]
        for name in given:
            if name not in names:
                raise PlanError(_stranger(self, name))
        values = {p.name: p.check(given.get(p.name, p.default)) for p in self.parameters}
        return self.resolve(values)


_SELECTORS: dict[str, Selector] = {}


def selector(
    name: str,
    *,
    summary: str,
    source: str,
    parameters: Sequence[Parameter] = (),
    resolve: Resolve = dict,
    fits: Fits = lambda units, settings: None,
) -> Callable[[Fill], Fill]:
    """Register a function as the method ``name``.

    Args:
        summary: one line of what it does.
        source: where it comes from: paper, arXiv id.
        parameters: keyword arguments of the function, all of them.
        resolve: settles parameters that depend on each other; may raise PlanError.
        fits: raises PlanError for settings that do not go with the model's units.
    """

    def register(fill: Fill) -> Fill:
        given = tuple(parameters)
        _SELECTORS[name] = Selector(name, summary, source, given, fill, resolve, fits)
        return fill

    return register


def registered() -> Mapping[str, Selector]:
    """All selectors by name, in the order they were registered."""
    return dict(_SELECTORS)


def find(name: str) -> Selector:
    """A selector by its name.

    Raises:
        PlanError: unknown; names the nearest.
    """
    if name not in _SELECTORS:
        raise PlanError(f"--method {name!r} is unknown{nearest(name, _SELECTORS)}")
    return _SELECTORS[name]


def _stranger(method: Selector, name: str) -> str:
    own = [parameter.name for parameter in method.parameters]
    owners = [
        other.name for other in _SELECTORS.values() if name in {p.name for p in other.parameters}
    ]
    text = f"--method {method.name} has no parameter {name!r}"
    if owners:
        return f"{text}: it is one of {', '.join(owners)}. See safeswap methods {method.name}."
    return f"{text}{nearest(name, own)}" if own else f"{text}, nor any other."
