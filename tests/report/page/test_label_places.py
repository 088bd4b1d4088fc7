"""Names beside marks: whatever the marks, no name lies on another, on a mark, or on a leader."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from page_parts import Page, words
from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate
from safeswap.report.page.label_places import Box, place_names
from safeswap.report.page.trade import shortened, trade_chart

BOUNDS = Box(64.0, 26.0, 578.0, 330.0)
marks = st.lists(st.tuples(st.floats(80, 560), st.floats(40, 320)), min_size=1, max_size=14)
widths = st.lists(st.floats(10, 212), min_size=14, max_size=14)


@settings(max_examples=100, deadline=None)
@given(marks, widths)
def test_no_name_lies_on_another_or_on_a_mark(
    points: list[tuple[float, float]], wide: list[float]
) -> None:
    found = place_names(points, [(w, 15.0) for w in wide[: len(points)]], BOUNDS)
    assert len(found) == len(points)
    boxes = [place.box for place in found if place]
    for one, other in combinations(boxes, 2):
        assert not one.meets(other)
    for box in boxes:
        assert box.inside(BOUNDS) and not any(holds(box, *point) for point in points)


def holds(box: Box, x: float, y: float) -> bool:
    return box.left < x < box.right and box.top < y < box.bottom


apart = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 5)), min_size=1, max_size=6, unique=True
)


@settings(max_examples=100, deadline=None)
@given(apart)
def test_a_leader_ends_at_its_name_and_runs_through_no_other(spots: list[tuple[int, int]]) -> None:
    points = [(90.0 + 75 * across, 45.0 + 54 * down) for across, down in spots]
    placed = place_names(points, [(70.0, 15.0)] * len(points), BOUNDS)
    for (x, y), place in zip(points, placed, strict=True):
        assert place is not None
        if place.leader is None:
            continue
        x1, y1, x2, y2 = place.leader
        assert math.dist((x, y), (x1, y1)) <= 7.1
        assert place.box.left <= x2 <= place.box.right and place.box.top <= y2 <= place.box.bottom
        between = [(x1 + n / 50 * (x2 - x1), y1 + n / 50 * (y2 - y1)) for n in range(51)]
        for other in placed:
            assert other is None or other is place or not any(holds(other.box, *p) for p in between)


@settings(max_examples=20, deadline=None)
@given(marks)
def test_names_of_a_usual_length_all_have_a_place(points: list[tuple[float, float]]) -> None:
    """Fourteen names of fourteen letters, even with all marks in one spot."""
    assert all(place_names(points, [(98.0, 15.0)] * len(points), BOUNDS))
    crowd = [points[0]] * len(points)
    assert all(place_names(crowd, [(98.0, 15.0)] * len(points), BOUNDS))


def test_a_lone_name_stands_beside_its_mark_without_a_leader() -> None:
    ((box, leader),) = place_names([(300.0, 200.0)], [(50.0, 15.0)], BOUNDS)
    assert leader is None and 300 < box.left < 312 and box.bottom <= 200


def candidate(name: str, unsafe: float, right: float, role: str = "merged") -> CandidateResult:
    def rate(value: float) -> RateEstimate:
        return RateEstimate(value, max(0.0, value - 0.1), min(1.0, value + 0.1), 100)

    return CandidateResult(name, "sw", role, unsafe=rate(unsafe), right=rate(right))


rates = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=14)


@settings(max_examples=40, deadline=None)
@given(rates)
def test_the_figures_names_do_not_overlap(points: list[tuple[float, float]]) -> None:
    found = [candidate(f"merge-number-{n}", *point) for n, point in enumerate(points)]
    page = Page(trade_chart(found, "sw"))
    names = page.all("text", class_="name")
    assert {words(one) for one in names} == {one.name for one in found}
    boxes = [
        Box(x, y - 11, x + 7.0 * len(words(one)), y + 3)
        for one in names
        for x, y in [(float(str(one.attributes["x"])), float(str(one.attributes["y"])))]
    ]
    for one, other in combinations(boxes, 2):
        assert not one.meets(other)


@pytest.mark.parametrize("name", ["short", "a" * 80, "日本語" * 20])
def test_a_long_name_keeps_its_ends(name: str, tmp_path: Path) -> None:
    from rich.cells import cell_len

    shown = shortened(name)
    assert cell_len(shown) <= 46 and (shown == name or "…" in shown)
    assert name.startswith(shown.partition("…")[0]) and name.endswith(shown.rpartition("…")[2])
