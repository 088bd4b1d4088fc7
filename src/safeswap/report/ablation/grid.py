"""Where a candidate stands in its grid: method, operator and every setting, also of its aliases.

All of it comes from records; a cell's name is only ever shown and compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safeswap import selectors
from safeswap.errors import EvaluationError, PlanError, nearest
from safeswap.selectors.words import shown

if TYPE_CHECKING:
    from safeswap.evaluation.records import CandidateRecord
    from safeswap.evaluation.results.candidates import CandidateResult
    from safeswap.operators import Operation


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One cell of a grid.

    Attributes:
        operator: with its settings, as given; None where an older file does not say it for sure.
        settings: every parameter of the method with its value, defaults included.
    """

    method: str
    operator: Operation | None
    settings: Mapping[str, Any]


def point_of(record: CandidateRecord) -> GridPoint:
    """Where something of this record stands."""
    return GridPoint(record.method, record.operator, settled(record.method, record.settings))


def points_of(one: CandidateResult) -> list[GridPoint]:
    """Where a candidate stands, and where its aliases do: they are one and the same table."""
    aliases = (alias.record for alias in one.aliases)
    return [point_of(record) for record in (one.record, *aliases) if record is not None]


def unplaced_note(found: Sequence[CandidateResult]) -> list[str]:
    """What an older results folder does not say for sure, as notes; none where all is known."""
    merged = [one for one in found if one.role == "merged"]
    names = [alias.name for one in merged for alias in one.aliases if alias.record is None]
    words = {one.name: one.record.words for one in merged if one.record.operator is None}
    notes = []
    if names := list(dict.fromkeys(names)):
        notes.append(
            f"{_counted(len(names))} of an older results folder {_are(len(names))} known by name "
            f"only and {_are(len(names), 'stand')} in no grid: {', '.join(names)}."
        )
    if words:
        said = ", ".join(f"{name} ({operator})" for name, operator in words.items())
        notes.append(
            f"{_counted(len(words))} of an older results folder {_are(len(words), 'have')} an "
            f"operator in words only and {_are(len(words), 'stand')} in no grid: {said}."
        )
    return notes


def _counted(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"


def _are(count: int, verb: str = "are") -> str:
    """A verb in the number of what it goes with."""
    return {"are": "is", "stand": "stands", "have": "has"}[verb] if count == 1 else verb


def settled(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a method with its value; as given where the method is not known here."""
    try:
        return selectors.find(method).resolve_settings(given)
    except PlanError:
        return dict(given)


def label(one: CandidateResult, number: int) -> str:
    """A candidate's number in tables and figures; with its name where that is not its cell's."""
    own = one.name == one.method or one.name.startswith(f"{one.method}+")
    return str(number) if own else f"{number}: {one.name}"


def operator_words(operator: Operation) -> list[str]:
    """Name and settings, word by word: ``ties density 0.2``; paths and digests are left out."""
    given = operator.settings.items()
    pairs = [(name, shown(value)) for name, value in given if not isinstance(value, str)]
    return [operator.name, *(word for pair in pairs for word in pair)]


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
