"""The Pareto figure in the page: unsafe answers against right answers, both with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from rich.cells import cell_len, set_cell_size

from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate, figures_of
from safeswap.evaluation.results.outcomes import Outcomes
from safeswap.evaluation.results.pareto import pareto_front
from safeswap.report.comparison import role_of
from safeswap.report.page.label_places import Box, Place, place_names
from safeswap.report.page.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    drawing,
    element,
    ticks,
    title,
    words,
)
from safeswap.selectors.words import in_words

_WIDTH, _HEIGHT, _TOP = 580.0, 380.0, 26.0
_NAMED = 14
"""Models up to which each has its name beside its mark; of more, those on the front have."""
_LETTER, _LINE = 7.0, 15.0
"""Room for a letter and for a line of a name: no common font needs more at this size."""
_LONGEST = 30
"""Letters of a name beside a mark."""
_MOST_NAMES = 40
"""Names that are placed; more are no longer read."""
_Scale = Callable[[float], float]
_SHAPES = {"base": "square", "safety": "triangle", "language": "diamond", "merged": "dot"}


def candidates_of(evidence: Outcomes, language: str) -> list[CandidateResult]:
    """Every model of an evaluation with its three figures in a language."""
    found = []
    for model, record in evidence.models.items():
        figures = figures_of(evidence, model, language)
        found.append(
            CandidateResult(
                name=model,
                language=language,
                role=role_of(record),
                unsafe=figures[Measure.UNSAFE],
                refused=figures[Measure.OVER_REFUSAL],
                right=figures[Measure.ACCURACY],
            )
        )
    return found


def trade_chart(found: Sequence[CandidateResult], language: str) -> str:
    """Unsafe (across, fewer to the left) against right answers (up) of one language.

    Empty where fewer than two merges have both figures: then nothing is traded. The front of these
    two figures is joined by steps; point estimates decide it, as in ``pareto_front``.
    """
    drawn = [one for one in found if one.unsafe and one.right]
    if sum(one.role == "merged" for one in drawn) < 2:
        return ""
    front = pareto_front(drawn, (Measure.UNSAFE, Measure.ACCURACY))
    left, wide = _span([one.unsafe for one in drawn if one.unsafe])
    low, tall = _span([one.right for one in drawn if one.right])

    def x(value: float) -> float:
        return LEFT + (_WIDTH - LEFT - RIGHT) * (value - left) / wide

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - BOTTOM - 14) * (low + tall - value) / tall

    parts = []
    bottom = _HEIGHT - BOTTOM - 14
    for number in ticks(left, left + wide, 6):
        parts.append(element("line", x1=x(number), x2=x(number), y1=_TOP, y2=bottom, class_="grid"))
        parts.append(words(f"{number:g}", x(number), bottom + 16, "tick", "middle"))
    for number in ticks(low, low + tall, 6):
        across = {"x1": LEFT, "x2": _WIDTH - RIGHT, "y1": y(number), "y2": y(number)}
        parts.append(element("line", class_="grid", **across))
        parts.append(words(f"{number:g}", LEFT - 8, y(number) + 4, "tick", "end"))
    parts.append(words("unsafe answers, % (fewer is better: left)", LEFT, _HEIGHT - 12, "tick"))
    parts.append(words("right answers, % (more is better: up)", 6, 13, "tick"))
    clip = (LEFT, _WIDTH - RIGHT, _TOP, bottom)
    for one in drawn:
        parts += _arms(one, x, y, clip)
    steps = sorted(
        (x(100 * one.unsafe.value), y(100 * one.right.value))
        for one in front
        if one.unsafe and one.right
    )
    corners = [steps[0]] if steps else []
    for (_, before), (nx, ny) in pairwise(steps):
        corners += [(nx, before), (nx, ny)]
    if len(corners) > 1:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in corners)
        parts.append(element("polyline", points=path, class_="front"))
    places = _names(drawn, front, x, y)
    for place, _ in places.values():
        if place.leader:
            x1, y1, x2, y2 = place.leader
            parts.append(element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="leader"))
    parts += [_mark(one, x, y, places.get(one.name)) for one in drawn]
    label = f"Right against unsafe answers, {language}"
    return drawing(_WIDTH, _HEIGHT, label, parts, "trade")


def _names(
    drawn: Sequence[CandidateResult], front: Sequence[CandidateResult], x: _Scale, y: _Scale
) -> dict[str, tuple[Place, str]]:
    """Model → where its name stands, and what of it; those on the front choose first."""
    ranked = sorted(drawn, key=lambda one: (one not in front, one.role == "merged"))
    named = [one for one in ranked if len(drawn) <= _NAMED or one in front or one.role != "merged"]
    named = named[:_MOST_NAMES]
    ranked = named + [one for one in ranked if one not in named]
    marks = [
        (x(100 * one.unsafe.value), y(100 * one.right.value))
        for one in ranked
        if one.unsafe and one.right
    ]
    texts = [shortened(one.name) for one in named]
    sizes = [(_LETTER * cell_len(text) + 2, _LINE) for text in texts]
    bounds = Box(LEFT, _TOP, _WIDTH - 2, _HEIGHT - BOTTOM - 16)
    places = place_names(marks, sizes, bounds)
    return {
        one.name: (place, text)
        for one, place, text in zip(named, places, texts, strict=True)
        if place
    }


def shortened(name: str) -> str:
    """A name that fits beside a mark, its middle left out; all of it stands on hover."""
    if cell_len(name) <= _LONGEST:
        return name
    half = _LONGEST // 2
    return f"{set_cell_size(name, half - 1).rstrip()}…{name[len(name) - half :]}"


def _span(figures: Sequence[RateEstimate]) -> tuple[float, float]:
    """Where an axis begins and how long it is, in per cent: all intervals, and room for a name."""
    low = 100 * min(one.low for one in figures)
    size = max(5.0, 100 * max(one.high for one in figures) - low)
    return low - 0.05 * size, 1.12 * size


def _arms(
    one: CandidateResult, x: _Scale, y: _Scale, clip: tuple[float, float, float, float]
) -> list[str]:
    left, right, top, bottom = clip
    if one.unsafe is None or one.right is None:
        return []
    cx, cy = x(100 * one.unsafe.value), y(100 * one.right.value)
    across = [min(right, max(left, x(100 * end))) for end in (one.unsafe.low, one.unsafe.high)]
    up = [min(bottom, max(top, y(100 * end))) for end in (one.right.low, one.right.high)]
    return [
        element("line", x1=across[0], x2=across[1], y1=cy, y2=cy, class_="arm"),
        element("line", x1=cx, x2=cx, y1=up[0], y2=up[1], class_="arm"),
    ]


def _mark(one: CandidateResult, x: _Scale, y: _Scale, named: tuple[Place, str] | None) -> str:
    if one.unsafe is None or one.right is None:
        return ""
    cx, cy = x(100 * one.unsafe.value), y(100 * one.right.value)
    inside = [title(_told(one)), _shape(_SHAPES.get(one.role, "dot"), cx, cy)]
    if named:
        (box, _), text = named
        inside.append(words(text, box.left + 1, box.bottom - 4, "name"))
    return element("g", *inside, class_=f"model {one.role}", data_name=one.name)


def _shape(kind: str, x: float, y: float) -> str:
    if kind == "dot":
        return element("circle", cx=x, cy=y, r=5.5)
    corners = {
        "square": ((-5, -5), (5, -5), (5, 5), (-5, 5)),
        "triangle": ((0, -7), (6.5, 5), (-6.5, 5)),
        "diamond": ((0, -7), (7, 0), (0, 7), (-7, 0)),
    }[kind]
    return element("polygon", points=" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners))


def _told(one: CandidateResult) -> str:
    said = [one.name]
    for measure in Measure:
        figure = one.figure(measure)
        if figure is not None:
            numbers = (figure.value, figure.low, figure.high)
            value, low, high = (f"{100 * number:.1f}" for number in numbers)
            said.append(f"{measure.words} {value} [{low}, {high}] %")
    if one.settings:
        said.append(in_words(one.settings))
    return "; ".join(said)
