"""From figures to grades, criterion by criterion."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safeswap.search.diagnose.record import Knowledge, LayerFigures, Reason, Refusing
from safeswap.search.diagnose.separation import Estimate
from safeswap.search.diagnose.verdict import Threshold, criteria, grade_of, way_of


def near(value: float, apart: float = 0.05) -> Estimate:
    return Estimate(value, value - apart, value + apart)


LAYER = LayerFigures(3, near(0.95), near(0.9), near(0.9), 0.9, 0.9, 0.6, 0.8)
KNOWN = Knowledge(-2.0, -1.0, -2.1, near(1.0), near(0.1), 0.9, near(0.8))
REFUSING = (
    Refusing("base", "en", near(0.0), near(0.0), near(0.0), near(0.5)),
    Refusing("safety", "en", near(0.8), near(0.1), near(0.7), near(0.95)),
    Refusing("safety", "sw", near(0.3), near(0.1), near(0.2), near(0.9)),
)


def held(**given: object) -> dict[str, bool | None]:
    found = {"layer": LAYER, "refusing": REFUSING, "knowledge": KNOWN, **given}
    return {one.name: one.holds for one in criteria("sw", **found)}  # type: ignore[arg-type]


def test_all_hold() -> None:
    assert set(held().values()) == {True}


@pytest.mark.parametrize(
    ("figure", "holds"), [(near(0.9), True), (near(0.7), None), (near(0.5), False), (None, None)]
)
def test_intervals_decide(figure: Estimate | None, holds: bool | None) -> None:
    assert Threshold(0.7, 0.7).judge(figure) is holds
    assert held(layer=replace(LAYER, language=figure))["separates"] is holds


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (near(0.9), "English requests are likely enough"),
        (near(0.7), "safer than with English ones"),
        (near(0.4), "use a method that reads harmful requests in sw"),
        (None, "add --harmful sw=FILE"),
    ],
)
def test_transfer_says_how_and_not_whether(figure: Estimate | None, words: str) -> None:
    layer = replace(LAYER, transfer=figure)
    assert words in way_of("sw", layer)
    assert set(held(layer=layer).values()) == {True}


def test_an_expert_without_gain_and_a_base_that_does_not_read() -> None:
    assert held(knowledge=replace(KNOWN, gain=near(-0.2)))["gain"] is False
    assert held(knowledge=replace(KNOWN, predicted=near(0.5)))["reads"] is None
    assert held(knowledge=replace(KNOWN, predicted=near(0.2)))["reads"] is False


def test_a_safety_expert_that_refuses_everything() -> None:
    english = replace(REFUSING[1], harmless=near(0.79), selective=near(0.01))
    blanket = replace(REFUSING[2], harmless=near(0.9))
    assert held(refusing=(english, REFUSING[2]))["refuses"] is False
    found = held(refusing=(REFUSING[1], blanket))
    assert found["carries over"] is False, "whatever its ranking"


def test_every_reason_is_a_sentence_with_its_figures() -> None:
    for one in criteria("sw", LAYER, REFUSING, KNOWN):
        assert one.text[0].islower() and ": " in one.text and not one.text.endswith(".")


@pytest.mark.parametrize(
    ("found", "grade"),
    [
        ([True, True], "likely"),
        ([True, None], "open"),
        ([True, False], "unlikely"),
        ([None, False], "unlikely"),
    ],
)
def test_the_worst_criterion_decides(found: list[bool | None], grade: str) -> None:
    assert grade_of([Reason("a", holds, "") for holds in found]) == grade
