"""A unit's weights become the shortest list of what has to be read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap.operators import linear


@pytest.mark.parametrize("role", ["safety", "sw"])
def test_one_expert_alone_is_a_copy(role: str) -> None:
    op = linear({"safety": 0.0, "sw": 0.0} | {role: 1.0})
    assert op.terms == ((role, 1.0),)
    assert op.copied == role


def test_no_expert_at_all_is_a_copy_of_the_base() -> None:
    assert linear({"safety": 0.0, "sw": 0.0}).copied == "base"


def test_a_blend_needs_no_base() -> None:
    op = linear({"safety": 0.3, "sw": 0.7})
    assert op.terms == (("safety", 0.3), ("sw", 0.7))
    assert op.copied is None


def test_task_arithmetic_takes_what_is_left_from_the_base() -> None:
    assert linear({"safety": 0.5, "sw": 1.0}).terms == (
        ("base", -0.5),
        ("safety", 0.5),
        ("sw", 1.0),
    )
    half = linear({"safety": 0.5, "sw": 0.0})
    assert half.terms == (("base", 0.5), ("safety", 0.5))
    assert half.copied is None


def test_experts_that_cancel_keep_the_base() -> None:
    """1 − 1 = 0 of both task vectors together is base plus their difference."""
    assert linear({"safety": 1.0, "sw": -1.0}).terms == (
        ("base", 1.0),
        ("safety", 1.0),
        ("sw", -1.0),
    )


numbers = st.floats(-4, 4, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(safety=numbers, spoken=numbers, values=st.tuples(numbers, numbers, numbers))
def test_the_op_is_base_plus_weighted_task_vectors(
    safety: float, spoken: float, values: tuple[float, float, float]
) -> None:
    base, ours, theirs = values
    op = linear({"safety": safety, "sw": spoken})
    held = {"base": base, "safety": ours, "sw": theirs}
    found = sum(coefficient * held[role] for role, coefficient in op.terms)
    wanted = base + safety * (ours - base) + spoken * (theirs - base)
    assert found == pytest.approx(wanted, abs=1e-7)
    assert all(coefficient != 0.0 for _, coefficient in op.terms)
