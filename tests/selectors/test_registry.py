"""The registry: parameters are checked before any work, and messages name the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from profiles import HAND, make_profile
from safeswap.errors import PlanError
from safeswap.plan import check_options, fill_plan
from safeswap.selectors import Row, Selector, registered, registry, selector

NAMES = (
    "share-difference",
    "gated",
    "uniform",
    "soup",
    "task-arithmetic",
    "chat-vector",
    "band",
    "cosine",
    "random",
    "inverted",
    "permuted",
)


@pytest.fixture
def restored() -> Iterator[None]:
    before = dict(registry._SELECTORS)
    yield
    for name in [*registry._SELECTORS]:
        if name not in before:
            registry._SELECTORS.remove(name)


def test_every_method_says_what_it_is_and_where_it_comes_from() -> None:
    assert set(NAMES) <= set(registered())
    for name, method in registered().items():
        assert name == method.name and method.summary.endswith(".") and method.source
        assert (method.fill.__doc__ or "").strip()
        for parameter in method.parameters:
            assert parameter.doc and parameter.limits
            assert parameter.check(parameter.default, parameter.name) == parameter.default


DEFAULTS = {name: one for name, one in registered().items() if name != "attribution"}
"""All but the one that needs a file and a budget."""


@pytest.mark.parametrize("method", DEFAULTS.values(), ids=DEFAULTS)
def test_defaults_fill_every_unit_and_fill_it_the_same_twice(method: Selector) -> None:
    profile = make_profile(HAND)
    one, two = (fill_plan(profile, method=method.name) for _ in range(2))
    assert one == two and tuple(one.units) == profile.units
    assert one.selector["name"] == method.name
    parameters = {k: v for k, v in one.selector.items() if k != "name"}
    assert fill_plan(profile, method=method.name, **parameters) == one


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("bnad", {}, "--method 'bnad' is unknown; did you mean 'band'?"),
        ("band", {"botom": 1}, "--method band has no parameter 'botom'; did you mean 'bottom'?"),
        ("band", {"tau": 1.0}, "has no parameter 'tau': it is one of share-difference, gated,"),
        ("uniform", {"bottom": 1}, "no parameter 'bottom': it is one of band. See safeswap"),
        ("band", {"bottom": -1}, "--set bottom -1 is not valid: it must be 0 or more"),
        ("band", {"bottom": 1.5}, "--set bottom 1.5 is not valid"),
        ("band", {"bottom": True}, "--set bottom True is not valid"),
        ("random", {"seed": -1}, "--set seed -1 is not valid: it must be from 0 to"),
        (
            "cosine",
            {"threshold": 1.01},
            "--set threshold 1.01 is not valid: it must be from -1 to 1",
        ),
        ("gated", {"gamma": float("nan")}, "--set gamma nan is not valid: it must be a number and"),
        ("gated", {"gamma": float("inf")}, "--set gamma inf is not valid"),
        ("gated", {"gamma": "1"}, "--set gamma 1 is not valid"),
        ("gated", {"outside": "base"}, "--outside 'base' is unknown"),
        ("gated", {"tau_relative": 1}, "--tau-relative 1 is not valid: it must be true or false"),
        ("uniform", {"form": "soop"}, "--set form 'soop' is unknown; did you mean 'soup'?"),
    ],
)
def test_what_cannot_be_is_refused_without_a_profile(
    method: str, given: dict[str, object], message: str
) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        check_options("sw", method=method, **given)


def test_a_method_must_give_every_unit_finite_weights(restored: None) -> None:
    for number, row in enumerate(({}, {"embeddings": Row(float("nan"), 0.0)})):
        selector(f"broken-{number}", summary="", source="")(lambda profile, language, r=row: r)
        with pytest.raises(PlanError, match="gives embeddings no finite weights"):
            fill_plan(make_profile(HAND), method=f"broken-{number}")
