"""Correlations and standings worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("scipy")

from real_model.associations import agreement, correlations, report, standing


def effect(value: float) -> dict[str, dict[str, float]]:
    one = {
        "refusing": value,
        "overrefusing": -value,
        "english": value**3,
        "selectivity": value,
        "ability": value * value,
    }
    return {"in": one, "out": {**one, "selectivity": -value}}


def table(refusing: float, ability: float) -> dict[str, float]:
    zero = {"overrefusing": 0.0, "english": refusing, "selectivity": 0.0}
    return {"refusing": refusing, **zero, "ability": ability, "moved": 0.01}


SHARES = {f"{n}.mlp": [0.1, 0.1, float(n)] for n in range(-3, 4)} | {"0.norms": [0, 0, 9.0]}
UNITS = {f"{n}.mlp": effect(n) for n in range(-3, 4)}
TABLES: dict[str, Any] = {
    "paper-by-module": table(2.5, 9.0),
    "inverted": table(0.5, -9.0),
    **{f"random-{n}": table(n, n) for n in range(4)},
}


def test_ranks_that_agree_and_ranks_that_do_not() -> None:
    found = correlations(SHARES, UNITS)
    assert found["in", "selectivity"][0] == pytest.approx(1)
    assert found["in", "overrefusing"][0] == pytest.approx(-1)
    assert found["out", "selectivity"][0] == pytest.approx(-1)
    assert found["in", "ability"][0] == pytest.approx(0)  # a parabola has no trend


def test_a_table_exceeds_some_of_the_random_ones() -> None:
    stands = standing(TABLES)
    assert (stands["refusing"], stands["english"], stands["ability"], stands["of"]) == (3, 3, 4, 4)


def model(harmful: str, english: str, nats: float) -> dict[str, Any]:
    outcomes = {
        "multijail/th": harmful,
        "benign/th": "aa",
        "multijail_en/en": english,
        "benign/en": "aa",
    }
    return {"outcomes": outcomes, "topic": "1", "nats": [nats], "chrf": [1.0]}


RECORD: dict[str, Any] = {
    "language": "th",
    "shares": SHARES,
    "models": {
        "paper-by-module": model("rraa", "raaa", 10),
        "inverted": model("raaa", "rraa", 20),
        "not read": model("rrrr", "rrrr", 1),
    },
}


def test_readouts_are_held_against_answers() -> None:
    found = agreement(RECORD, TABLES)
    assert found["refusing"] == (pytest.approx(1), 2)
    assert found["ability"] == (pytest.approx(1), 2)


def test_the_report_shows_the_range_of_the_random_ones() -> None:
    text = report("th-0", RECORD, {"units": UNITS, "tables": TABLES})
    assert "+1.00 (p = " in text
    assert "| random | 0.00 to 3.00 | 0.00 to 0.00 |" in text
    assert "- inverted exceeds of 4 random tables: refusing 1, overrefusing 0" in text
