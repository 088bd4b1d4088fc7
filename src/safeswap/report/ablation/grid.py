"""Where a candidate stands in its grid: method, operator and every setting, also of its aliases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safeswap import selectors
from safeswap.errors import EvaluationError, PlanError, nearest

if TYPE_CHECKING:
    from safeswap.evaluation.results.candidates import CandidateResult

SYMBOLS = {"tau": "τ", "alpha": "α", "gamma": "γ", "scale": "λ"}
_WORDS = {"True": True, "False": False, "None": None}


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One cell of a grid.

    Attributes:
        operator: its name and settings word by word, however they were punctuated.
        settings: every parameter of the method with its value, defaults included.
    """

    method: str
    operator: tuple[str, ...]
    settings: Mapping[str, Any]


def point_of(one: CandidateResult) -> GridPoint:
    """Where a candidate itself stands."""
    words = re.findall(r"[\w.-]+", one.operator)
    return GridPoint(one.method, _alike(words), settled(one.method, one.settings))


def points_of(one: CandidateResult) -> list[GridPoint]:
    """Where a candidate stands, and where its aliases do: they are one and the same table."""
    return [point_of(one), *map(place_named, one.aliases)]


def place_named(name: str) -> GridPoint:
    """The place that a sweep's cell is named after.

    ``share-difference+by-layer+tau-0.001+ties+density-0.2``: the method, its settings, and where it
    is not ``linear`` the operator with its own.
    """
    method, *parts = name.split("+")
    known = selectors.registered()
    own = {p.name for p in known[method].parameters} if method in known else None
    given: dict[str, Any] = {}
    operator: list[str] = []
    for part in parts:
        key, separator, value = part.partition("-")
        if separator and not operator and (key in own if own is not None else True):
            given[key] = _value(value)
        else:
            operator += [key, value] if operator else [part]
    return GridPoint(method, _alike(operator or ["linear"]), settled(method, given))


def _alike(words: Iterable[str]) -> tuple[str, ...]:
    """Numbers written in one way: 1 and 1.0 are the same setting."""
    values = map(_value, words)
    return tuple(f"{v:g}" if isinstance(v, int | float) else str(v) for v in values)


def settled(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a method with its value; as given where the method is not known here."""
    try:
        return selectors.find(method).resolve_settings(given)
    except PlanError:
        return dict(given)


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def label(one: CandidateResult, number: int) -> str:
    """A candidate's number in tables and figures; with its name where that is not its cell's."""
    own = one.name == one.method or one.name.startswith(f"{one.method}+")
    return str(number) if own else f"{number}: {one.name}"


def symbol(name: str) -> str:
    """A setting as a table's head or a figure's axis has it."""
    return SYMBOLS.get(name, name.replace("_", " "))


def shown(value: Any) -> str:
    """A setting's value for the reader."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def in_words(settings: Mapping[str, Any]) -> str:
    """Settings on one line: ``τ = 0.001, α = 0.5``."""
    return ", ".join(f"{symbol(k)} = {shown(v)}" for k, v in settings.items() if v is not None)


def order_of(values: Iterable[Any]) -> tuple[tuple[int, float, str], ...]:
    """A key that sorts numbers as numbers, before texts; what is not there comes first."""
    return tuple(
        (0, 0.0, "")
        if value is None
        else (1, float(value), "")
        if isinstance(value, int | float)
        else (2, 0.0, str(value))
        for value in values
    )


def candidates(found: Sequence[CandidateResult]) -> list[CandidateResult]:
    """The merges among the models.

    Raises:
        EvaluationError: there is none.
    """
    merged = [one for one in found if one.role == "merged"]
    if not merged:
        names = ", ".join(dict.fromkeys(one.name for one in found)) or "nothing"
        raise EvaluationError(
            f"no candidate is measured here ({names} only): run the sweep first, with a grid of "
            "at least one cell."
        )
    return merged


def in_language(found: Sequence[CandidateResult], language: str) -> list[CandidateResult]:
    """What was measured in one language.

    Raises:
        EvaluationError: nothing was (names the nearest language), or no candidate.
    """
    own = [one for one in found if one.language == language]
    if not own:
        known = dict.fromkeys(one.language for one in found)
        raise EvaluationError(f"nothing is measured in {language!r}{nearest(language, known)}.")
    candidates(own)
    return own
