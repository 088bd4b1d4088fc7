"""Every candidate with its settings and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.benchmarks.splits import PARTS, Part
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.models import ROLE_TITLES
from safeswap.evaluation.results.pareto import pareto_front
from safeswap.report.ablation.grid import (
    candidates,
    label,
    order_of,
    point_of,
    unplaced_note,
)
from safeswap.selectors.words import in_words, shown_setting, symbol
from safeswap.tables import Cell, Column, Row, Table

if TYPE_CHECKING:
    from safeswap.evaluation.records import Alias
    from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate

QUESTIONS: Mapping[Part, str] = {
    "dev": "dev questions, no test result",
    "test": "test questions",
}
PART_NOTES: Mapping[Part, str] = {
    "dev": "Dev questions: the choice among these candidates was made on them, so these figures "
    "flatter what was chosen. No test result.",
    "test": "Test questions: none of them was used for the choice.",
}
_FIRST = ("by", "tau", "alpha")


def ablation_table(found: Sequence[CandidateResult], part: Part) -> Table:
    """Every candidate with its settings and figures, after the models it was made from.

    Rows are grouped by method and sorted by their settings. A parameter has a column if it varies
    (τ, α and the granularity also if they were given); what is the same throughout is said below.
    Each language has three columns: unsafe answers, harmless prompts refused, right answers, in per
    cent with 95 % intervals. A cell that came to the very same table as another in one language
    but not in all shows that one's figures with a note.

    Args:
        part: ``dev`` or ``test``: which questions these are. A dev table says in its title and
            below it that it is no test result.

    Raises:
        EvaluationError: no candidates, or another word for the part.
    """
    check_part(part)
    merged = candidates(found)
    languages = list(dict.fromkeys(one.language for one in found))
    ordered, (varied, fixed) = _ordered(merged), _parameters(merged)
    joined = merged[0].record.operator_title
    by_operator = len({one.record.operator_title for one in merged}) > 1
    settings = [*map(_head, varied), *(["operator"] if by_operator else [])]
    several = len(languages) > 1
    columns = [Column("candidate", align="left")]
    columns += [Column(name, "settings" if several else "") for name in settings]
    columns += [Column(kind.column, x if several else "") for x in languages for kind in Measure]
    rows = [
        Row.of(title, *[""] * len(settings), *_figures(models, languages), group="made from")
        for title, models in made_from(found)
    ]
    for number, one in enumerate(ordered, start=1):
        place = point_of(one.record).settings
        values = [shown_setting(name, place, unit=False) for name in varied]
        values += [one.record.operator_title] if by_operator else []
        figures = _figures(_everywhere(one.name, merged), languages, one.name, ordered)
        name = Cell(label(one, number), key=one.name)
        rows.append(Row.of(name, *values, *figures, group=one.method))
    notes = [
        PART_NOTES[part],
        "Per cent with 95 % intervals. τ: threshold in points, α: safety's part in a blend.",
        *([f"Not varied: {fixed}."] if fixed else []),
        *([] if by_operator else [f"Task vectors are joined by: {joined}."]),
    ]
    for language in languages:
        lead = f"{language}: " if several else ""
        own = [one for one in found if one.language == language]
        notes += [f"{lead}{note}" for note in _readings(own, numbers(found))]
    notes += unplaced_note(found)
    where = "" if several else f" ({languages[0]})"
    title = f"Ablation{where}: {QUESTIONS[part]}"
    return Table(title, tuple(columns), tuple(rows), tuple(notes), "candidates")


def _head(name: str) -> str:
    """A setting's column; τ with its unit."""
    return f"{symbol(name)}, points" if name == "tau" else symbol(name)


def numbers(found: Sequence[CandidateResult]) -> dict[str, int]:
    """The number of each candidate in the tables and figures, by its name, from 1.

    Raises:
        EvaluationError: no candidates.
    """
    ordered = _ordered(candidates(found))
    return {one.name: number for number, one in enumerate(ordered, start=1)}


def _ordered(merged: Sequence[CandidateResult]) -> list[CandidateResult]:
    """One candidate of each name: by method, operator and settings."""
    unique = {one.name: one for one in reversed(merged)}
    methods = list(dict.fromkeys(one.method for one in merged))
    varied, _ = _parameters(merged)

    def key(one: CandidateResult) -> tuple[Any, ...]:
        settings = point_of(one.record).settings
        values = order_of(settings.get(name) for name in varied)
        return methods.index(one.method), one.record.operator_title, values, one.name

    return sorted(unique.values(), key=key)


def check_part(part: str) -> None:
    """Refuse a part that is neither dev nor test.

    Raises:
        EvaluationError: names the nearest.
    """
    if part not in PARTS:
        raise EvaluationError(f"part {part!r} is unknown{nearest(part, PARTS)}")


def _parameters(merged: Sequence[CandidateResult]) -> tuple[list[str], str]:
    """Parameters with a column, and the others that were given, in words."""
    given = list(dict.fromkeys(name for one in merged for name in one.settings))
    settings = [(one.method, point_of(one.record).settings) for one in merged]
    varied, fixed = [], {}
    for name in sorted(given, key=lambda n: _FIRST.index(n) if n in _FIRST else len(_FIRST)):
        values = {shown_setting(name, s) for _, s in settings if s.get(name) is not None}
        if name in _FIRST or len(values) > 1:
            varied.append(name)
        elif values:
            fixed[name] = next(s[name] for _, s in settings if s.get(name) is not None)
    return varied, in_words(fixed)


def made_from(found: Sequence[CandidateResult]) -> Iterator[tuple[str, dict[str, CandidateResult]]]:
    """What the candidates were made from, role by role: title, and the model in each language."""
    for role, title in ROLE_TITLES.items():
        models = {one.language: one for one in reversed(found) if one.role == role}
        if models:
            yield title, models
    others = [one for one in found if one.role not in (*ROLE_TITLES, "merged")]
    for name in dict.fromkeys(one.name for one in others):
        yield name, {one.language: one for one in reversed(others) if one.name == name}


def _everywhere(name: str, merged: Sequence[CandidateResult]) -> dict[str, CandidateResult]:
    """The candidate of a name in each language, or the one whose table is the same there."""
    same = {one.language: one for one in merged if any(name == alias.name for alias in one.aliases)}
    return same | {one.language: one for one in merged if one.name == name}


def _figures(
    models: Mapping[str, CandidateResult],
    languages: Sequence[str],
    name: str | None = None,
    ordered: Sequence[CandidateResult] = (),
) -> Iterator[Cell]:
    """The figures in every language; a note where another candidate speaks for ``name``."""
    for language in languages:
        one = models.get(language)
        if one is None:
            yield from [Cell.missing(f"Not measured in {language}.")] * len(Measure)
            continue
        cells = [figure_cell(one, kind) for kind in Measure]
        if name not in (None, one.name):
            number = 1 + next(n for n, other in enumerate(ordered) if other.name == one.name)
            note = f"In {language} the very same table as candidate {number}, measured once."
            cells = [replace(cell, note=cell.note or note) for cell in cells]
        yield from cells


def figure_cell(one: CandidateResult, kind: Measure) -> Cell:
    """A figure in per cent with its interval; its key leads to the model's rows."""
    figure = one.figure(kind)
    key = f"{one.language}/{one.name}/{kind}"
    if figure is None:
        return Cell.missing("The suite has no such benchmark, or not all is judged yet.", key)
    return Cell.figure(figure.value, figure.low, figure.high, key=key)


def _readings(own: Sequence[CandidateResult], number: Mapping[str, int]) -> Iterator[str]:
    """What may be read from one language's figures: nobody is best without a reason."""
    merged = [one for one in own if one.role == "merged"]
    said = [text for kind in Measure if (text := _best(merged, kind, number))]
    if said:
        yield (
            f"{' '.join(said)} Overlapping intervals tell no two apart; "
            "safeswap compare tests pairs on the same questions."
        )
    counted = [kind for kind in Measure if any(one.figure(kind) for one in own)]
    if front := pareto_front(own):
        inputs = [ROLE_TITLES.get(one.role, one.name) for one in front if one.role != "merged"]
        made = sorted(number[one.name] for one in front if one.role == "merged")
        names = ", ".join([*inputs, *map(str, made)])
        yield f"On the Pareto front of {', '.join(counted)} (point estimates): {names}."
    merged = sorted(merged, key=lambda one: number[one.name])
    if same := [f"{number[one.name]}: {_also(one)}" for one in merged if one.aliases]:
        yield f"Other settings that came to the very same table, measured once: {'; '.join(same)}."


def _best(
    merged: Sequence[CandidateResult], kind: Measure, number: Mapping[str, int]
) -> str | None:
    """The best figure of the candidates, and how many others its interval reaches."""
    figures: list[tuple[str, RateEstimate]] = [(o.name, f) for o in merged if (f := o.figure(kind))]
    if not figures:
        return None
    value = min((figure.value for _, figure in figures), key=kind.cost)
    lead = [(name, figure) for name, figure in figures if figure.value == value]
    best = lead[0][1]
    near = sum(f.low <= best.high and best.low <= f.high for _, f in figures) - len(lead)
    others = len(figures) - len(lead)
    if not others:
        return f"{kind.best}: all are equal." if len(lead) > 1 else None
    rest = f"overlaps those of {near} of the {others} others" if near else "overlaps no other's"
    names = ", ".join(map(str, sorted(number[name] for name, _ in lead)))
    return f"{kind.best}: {names}, whose interval {rest}."


def _also(one: CandidateResult) -> str:
    """What its aliases have otherwise: ``α = 0.1, 0.3``."""
    otherwise: dict[str, list[str]] = {}
    for alias in one.aliases:
        name, value = _only_difference(one, alias) or ("", alias.name)
        otherwise.setdefault(name, []).append(value)
    return ", ".join(name + ", ".join(values) for name, values in otherwise.items())


def _only_difference(one: CandidateResult, alias: Alias) -> tuple[str, str] | None:
    """``("α = ", "0.1")`` where an alias differs in one setting; None in more, or not known."""
    if alias.record is None:
        return None
    place, other = point_of(one.record), point_of(alias.record)
    if place.operator is None or (other.method, other.operator) != (place.method, place.operator):
        return None
    differing = {k: v for k, v in other.settings.items() if place.settings.get(k) != v}
    if len(differing) != 1:
        return None
    (name,) = differing
    return f"{symbol(name)} = ", shown_setting(name, other.settings)
