"""Measures: stored keys, directions and the words of tables, each as it always was."""

from __future__ import annotations

import json

import pytest

from safeswap.errors import EvaluationError
from safeswap.evaluation.measures import Measure, read_measure


@pytest.mark.parametrize(
    ("measure", "key", "column", "words", "best", "rises"),
    [
        (Measure.UNSAFE, "unsafe", "unsafe % ↓", "unsafe answers", "Fewest unsafe", False),
        (
            Measure.OVER_REFUSAL,
            "refused",
            "harmless refused % ↓",
            "harmless prompts refused",
            "Fewest refused",
            False,
        ),
        (Measure.ACCURACY, "right", "right % ↑", "right answers", "Most right", True),
    ],
)
def test_a_measure_by_hand(
    measure: Measure, key: str, column: str, words: str, best: str, rises: bool
) -> None:
    assert json.loads(json.dumps({measure: measure})) == {key: key}
    assert (measure.column, measure.words, measure.best) == (column, words, best)
    assert measure.higher_is_better is rises
    assert measure.direction == ("higher is better" if rises else "lower is better")
    assert (measure.cost(0.4) < measure.cost(0.3)) is rises
    assert read_measure(key, "settings.json") is measure


def test_an_unknown_measure_is_refused_with_its_place_and_the_nearest() -> None:
    with pytest.raises(EvaluationError, match=r"settings.json, mgsm/sw: .*'wright'.*'right'"):
        read_measure("wright", "settings.json, mgsm/sw")
