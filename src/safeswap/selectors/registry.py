"""What a selector is, and the table of all of them: name, source, parameters with their limits.

A selector is a function from a profile to a row per unit. The decorator registers it:

    @selector("halves", summary="Safety above the middle.", source="an example")
    def halves(profile, language):
        return {unit: Row(0.5, 0.5) for unit in profile.units}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safeswap.errors import PlanError, nearest
from safeswap.parameters import Parameter, resolve_settings
from safeswap.registry import Registry

OPTIONS = (
    *("by", "tau", "tau_relative", "alpha", "norms", "outside"),
    *("router", "shared_experts"),
)
"""Parameters that have an option of their own on the command line; the others go by ``--set``."""


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


def option_of(name: str) -> str:
    """How a selector's parameter is written on the command line: ``--tau``, ``--set bottom``."""
    return f"--{name.replace('_', '-')}" if name in OPTIONS else f"--set {name}"


Fill = Callable[..., Mapping[str, Row]]
"""``fill(profile, language, **settings)`` → a row for every unit of the profile."""
Resolve = Callable[[dict[str, Any]], dict[str, Any]]
"""Settles what parameters say together, before any profile is read."""
Pin = Callable[[dict[str, Any]], dict[str, Any]]
"""Names the files among settings so that they are found, and known again, anywhere."""
Fits = Callable[[Sequence[str], Mapping[str, Any]], None]
"""``fits(units, settings)`` refuses settings that a model of these units cannot have, before its
weights are read; ``fill`` refuses them too."""


Seen = Callable[[Mapping[str, Any]], frozenset[str]]
"""``seen(settings)``: identities of the prompts by which a method decides, or none."""


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
    pin: Pin
    seen: Seen

    def resolve_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its value: those given, checked, and the defaults of the others.

        Raises:
            PlanError: an unknown parameter (says which method has it, or the nearest name), a
                value out of its limits, or parameters that exclude each other.
        """
        own = {parameter.name for parameter in self.parameters}
        for name in given:
            if name not in own:
                _refuse_anothers(self, name)
        where = f"--method {self.name}"
        return self.resolve(resolve_settings(self.parameters, given, where, option_of))


_SELECTORS: Registry[Selector] = Registry("selector")


def selector(
    name: str,
    *,
    summary: str,
    source: str,
    parameters: Sequence[Parameter] = (),
    resolve: Resolve = dict,
    fits: Fits = lambda units, settings: None,
    pin: Pin = dict,
    seen: Seen = lambda settings: frozenset(),
) -> Callable[[Fill], Fill]:
    """Register a function as the method ``name``.

    Args:
        summary: one line of what it does.
        source: where it comes from: paper, arXiv id.
        parameters: keyword arguments of the function, all of them.
        resolve: settles parameters that depend on each other; may raise PlanError.
        fits: raises PlanError for settings that do not go with the model's units.
        pin: gives files their absolute paths and digests, as the plan is to record them; raises
            ProfileError where one is not there, or not the one that the settings name.
        seen: the prompts by which it decides, as a plan remembers them.

    Raises:
        ConfigError: another module has a method of this name.
    """

    def register(fill: Fill) -> Fill:
        given = tuple(parameters)
        made = Selector(name, summary, source, given, fill, resolve, fits, pin, seen)
        _SELECTORS.add(name, made, fill)
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


def paths_in(selector: Mapping[str, Any]) -> dict[str, str]:
    """The files that a plan's selector names, name and settings together: parameter → path."""
    name = str(selector.get("name"))
    parameters = _SELECTORS[name].parameters if name in _SELECTORS else ()
    named = [parameter.name for parameter in parameters if parameter.is_path]
    return {one: str(selector[one]) for one in named if selector.get(one)}


def _refuse_anothers(method: Selector, name: str) -> None:
    """Refuse a parameter that other methods have and this one has not: says which those are."""
    owners = [
        other.name for other in _SELECTORS.values() if name in {p.name for p in other.parameters}
    ]
    if owners:
        raise PlanError(
            f"--method {method.name} has no parameter {name!r}: it is one of {', '.join(owners)}. "
            f"See safeswap methods {method.name}."
        )
