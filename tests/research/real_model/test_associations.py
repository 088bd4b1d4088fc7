"""Correlations and standings worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("scipy")

from real_model.associations import correlations, report, standing


def effect(value: float) -> dict[str, dict[str, float]]:
    one = {"selectivity": value, "english": -value, "ability": value * value}
    return {"in": one, "out": {**one, "selectivity": -value}}


SHARES = {f"{n}.mlp": [0.1, 0.1, float(n)] for n in range(-3, 4)} | {"0.norms": [0, 0, 9.0]}
UNITS = {f"{n}.mlp": effect(n) for n in range(-3, 4)}
TABLES: dict[str, Any] = {
    "paper-by-module": {"selectivity": 2.5, "english": 0.0, "ability": 9.0, "moved": 0.01},
    "inverted": {"selectivity": 0.5, "english": 0.0, "ability": -9.0, "moved": 0.01},
    **{f"random-{n}": {"selectivity": n, "english": n, "ability": n} for n in range(4)},
}


def test_ranks_that_agree_and_ranks_that_do_not() -> None:
    found = correlations(SHARES, UNITS)
    assert found["in", "selectivity"][0] == pytest.approx(1)
    assert found["in", "english"][0] == pytest.approx(-1)
    assert found["out", "selectivity"][0] == pytest.approx(-1)
    assert found["in", "ability"][0] == pytest.approx(0)  # a parabola has no trend


def test_a_table_exceeds_some_of_the_random_ones() -> None:
    assert standing(TABLES) == {"selectivity": 3, "english": 0, "ability": 4, "of": 4}


def test_the_report_shows_the_range_of_the_random_ones() -> None:
    text = report("th-0", {"shares": SHARES}, {"units": UNITS, "tables": TABLES})
    assert "+1.00 (p = " in text
    assert "| random | 0.00 to 3.00 | 0.00 to 3.00 | 0.00 to 3.00 |" in text
    assert "- inverted exceeds of 4 random tables: selectivity 1, english 0, ability 0" in text
