"""Parameters: what texts become, what is within the limits, and what the limits are called."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from safeswap.errors import PlanError
from safeswap.parameters import Parameter, read_value, resolve_settings


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (float, "1e-3", 0.001),
        (int, "12", 12),
        (bool, "True", True),
        (bool, "no", False),
        (str, "8-23", "8-23"),
    ],
)
def test_texts_become_values(kind: type, text: str, value: object) -> None:
    found = Parameter("x", None, "", kind).parse(text, "--set x")
    assert found == value and type(found) is kind


@pytest.mark.parametrize(("kind", "text"), [(float, "much"), (int, "1.5"), (bool, "2"), (int, "")])
def test_texts_that_are_no_values_are_refused(kind: type, text: str) -> None:
    with pytest.raises(PlanError, match=r"--set x .* is not valid: it must be"):
        Parameter("x", None, "", kind).parse(text, "--set x")


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        (Parameter("x", 0.0, ""), "a number"),
        (Parameter("x", 0, "", int), "a whole number"),
        (Parameter("x", 0.0, "", low=0.0), "0 or more"),
        (Parameter("x", 0.0, "", low=0.0, high=1.0), "from 0 to 1"),
        (Parameter("x", 1, "", int, 1, 9), "from 1 to 9, a whole number"),
        (Parameter("x", 0.5, "", float, 0, 1, open_low=True), "a number in (0, 1]"),
        (Parameter("x", 0.5, "", float, 0, 1, open_high=True), "a number in [0, 1)"),
        (Parameter("x", 0.5, "", high=1), "a number in (-inf, 1]"),
        (Parameter("x", "a", "", str, choices=("a", "b")), "a | b"),
        (Parameter("x", "", "", Path), "a path"),
        (Parameter("x", False, "", bool), "true or false"),
    ],
)
def test_limits_in_words(parameter: Parameter, words: str) -> None:
    assert parameter.limits == words
    assert parameter.is_path is (words == "a path")


HALF_OPEN = Parameter("x", 0.5, "", float, 0, 1, open_low=True)


@pytest.mark.parametrize("value", [0, -1e-300, 1.0000001, math.nan, math.inf, True, "0.5", None])
def test_values_out_of_the_limits_are_refused_where_they_stand(value: object) -> None:
    with pytest.raises(PlanError, match=r"^unit 3\.mlp: x .* is not valid: it must be a number in"):
        HALF_OPEN.check(value, "unit 3.mlp: x")


def test_values_come_back_in_the_parameters_kind() -> None:
    for value in (1, 5e-324, 1.0):
        found = HALF_OPEN.check(value, "x")
        assert found == value and type(found) is float
    whole = Parameter("n", 1, "", int, low=1)
    assert type(whole.check(3.0, "n")) is int
    with pytest.raises(PlanError, match=r"n 2\.5 is not valid: .* 1 or more, a whole number"):
        whole.check(2.5, "n")
    assert Parameter("n", None, "", int).check(None, "n") is None
    with pytest.raises(PlanError, match="n None is not valid"):
        whole.check(None, "n")


def test_numbers_beyond_all_floats_are_refused_or_kept_whole() -> None:
    with pytest.raises(PlanError, match="x 1000"):
        Parameter("x", 0.0, "").check(10**400, "x")
    assert Parameter("n", 0, "", int).check(10**400, "n") == 10**400


def test_settings_are_resolved_whole_or_refused_by_name() -> None:
    parameters = [HALF_OPEN, Parameter("seed", 0, "", int, 0)]
    found = resolve_settings(parameters, {"seed": 3}, "--method m", "--set {}".format)
    assert found == {"x": 0.5, "seed": 3}
    with pytest.raises(PlanError, match="--method m has no parameter 'sed'; did you mean 'seed'"):
        resolve_settings(parameters, {"sed": 3}, "--method m", "--set {}".format)
    with pytest.raises(PlanError, match="--set seed -1 is not valid"):
        resolve_settings(parameters, {"seed": -1}, "--method m", "--set {}".format)
    with pytest.raises(PlanError, match="--method m has no parameter 'x'; it has no parameters"):
        resolve_settings([], {"x": 1}, "--method m", str)


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("-0.5", -0.5), ("1e-3", 0.001), ("True", True), ("false", False), ("yes", "yes"),
     ("bfloat16", "bfloat16"), ("", "")],
)  # fmt: skip
def test_a_text_says_what_it_is(text: str, value: object) -> None:
    found = read_value(text)
    assert found == value and type(found) is type(value)
