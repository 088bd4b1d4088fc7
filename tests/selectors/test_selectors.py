"""The paper's selector, by a table worked by hand and by what must hold of any table."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from profiles import HAND, Moves, granularity, make_profile, moved, tables
from safeswap.errors import PlanError
from safeswap.profile import Profile, TensorProfile
from safeswap.selectors import UnitChoice, share_difference


def decisions(table: Mapping[str, UnitChoice]) -> dict[str, str]:
    return {unit: choice.decision for unit, choice in table.items()}


def test_by_layer_as_worked_by_hand() -> None:
    table = share_difference(make_profile(HAND), "sw", by="layer", tau=0.05, norms="follow")
    wanted = {0: (6.0 / 10.1, 2.2 / 9.9), 1: (2.4 / 10.1, 2.4 / 9.9), 2: (1.7 / 10.1, 5.3 / 9.9)}
    for layer, (ours, theirs) in wanted.items():
        for kind in ("attention", "mlp"):
            choice = table[f"{layer}.{kind}"]
            assert choice.share_safety == pytest.approx(ours, rel=1e-8)
            assert choice.share_language == pytest.approx(theirs, rel=1e-8)
            assert choice.difference == pytest.approx(ours - theirs, rel=1e-6)
    by_layer = ("safety", "blend", "language")
    assert decisions(table) == {
        f"{layer}.{kind}": by_layer[layer]
        for layer in range(3)
        for kind in ("attention", "mlp", "norms")
    }


def test_by_module_as_worked_by_hand() -> None:
    table = share_difference(make_profile(HAND), "sw", tau=0.1)
    ours = (2.5, 2.5, 1.0, 1.0, 0.5, 1.0)
    theirs = (0.5, 1.5, 1.0, 1.0, 2.0, 2.5)
    made = ("safety", "safety", "blend", "blend", "language", "language")
    units = [f"{layer}.{kind}" for layer in range(3) for kind in ("attention", "mlp")]
    for unit, safety, spoken, decision in zip(units, ours, theirs, made, strict=True):
        assert table[unit].share_safety == pytest.approx(safety / 8.5, rel=1e-8)
        assert table[unit].share_language == pytest.approx(spoken / 8.5, rel=1e-8)
        assert table[unit].decision == decision
    assert {table[f"{layer}.norms"].decision for layer in range(3)} == {"language"}


def test_the_threshold_lies_between() -> None:
    """0.mlp differs by 1 / 8.5 = 0.1176…: swapped just below it, blended just above."""
    profile = make_profile(HAND)
    below = share_difference(profile, "sw", tau=1 / 8.5 - 1e-6)
    above = share_difference(profile, "sw", tau=1 / 8.5 + 1e-6)
    assert (below["0.mlp"].decision, above["0.mlp"].decision) == ("safety", "blend")


@pytest.mark.parametrize(
    ("norms", "wanted"),
    [
        ("language", ("language", "language", "language")),
        ("safety", ("safety", "safety", "safety")),
        ("blend", ("blend", "blend", "blend")),
        ("follow", ("blend", "blend", "language")),  # in layer 0 the modules disagree
    ],
)
def test_norms_go_where_they_are_told(norms: str, wanted: tuple[str, ...]) -> None:
    table = share_difference(make_profile(HAND), "sw", tau=0.15, norms=norms)
    assert decisions(table)["0.attention"] != decisions(table)["0.mlp"]
    assert tuple(table[f"{layer}.norms"].decision for layer in range(3)) == wanted
    assert all(table[f"{layer}.norms"].difference is None for layer in range(3))


@pytest.mark.parametrize(("norm", "divisor"), [(1e-8, 1.0), (1.1e-8, 1.1e-8), (0.0, 1.0)])
def test_a_base_norm_up_to_1e_8_counts_the_update_as_it_is(norm: float, divisor: float) -> None:
    moves = (((1.0, 1.0), (0.0, 0.0), (1.0, 1.0)), ((1.0, 1.0), (0.0, 0.0), (1.0, 1.0)))
    profile = make_profile(moves, base_norm=1.0)
    changed = [
        t
        if t.name != "0.self_attn.q_proj"
        else TensorProfile(
            t.name, t.unit, t.role, t.shape, t.dtype, norm, t.update_norm, t.inner, t.digests
        )
        for t in profile.tensors
    ]
    table = share_difference(Profile(profile.inputs, profile.units, tuple(changed)), "sw")
    large = 1.0 / divisor
    assert table["0.attention"].share_safety == pytest.approx(large / (large + 3), rel=1e-6)


@pytest.mark.parametrize("expert", ["safety", "sw"])
def test_an_expert_identical_to_the_base_is_refused(expert: str) -> None:
    moves = tuple(
        tuple((0.0, b) if expert == "safety" else (a, 0.0) for a, b in row) for row in HAND
    )
    with pytest.raises(PlanError, match=f"the {expert} expert .* is identical to the base"):
        share_difference(make_profile(moves), "sw")


@settings(max_examples=80, deadline=None)
@given(moves=tables, by=granularity, tau=st.floats(1e-4, 0.3))
def test_differences_sum_to_nothing_and_never_all_is_safety(
    moves: Moves, by: str, tau: float
) -> None:
    assume(moved(moves))
    table = share_difference(make_profile(moves), "sw", by=by, tau=tau)
    kinds = ("attention",) if by == "layer" else ("attention", "mlp")
    units = [table[f"{layer}.{kind}"] for layer in range(len(moves)) for kind in kinds]
    found = [unit.difference for unit in units if unit.difference is not None]
    assert len(found) == len(units)
    assert math.fsum(found) == pytest.approx(0.0, abs=1e-4)
    assert math.fsum(u.share_safety or 0.0 for u in units) == pytest.approx(1.0, abs=1e-4)
    assert {unit.decision for unit in units} not in ({"safety"}, {"language"})


@settings(max_examples=80, deadline=None)
@given(moves=tables, by=granularity, tau=st.floats(0.0, 0.3))
def test_swapping_the_roles_mirrors_the_decisions(moves: Moves, by: str, tau: float) -> None:
    assume(moved(moves))
    mirror = {"safety": "language", "language": "safety", "blend": "blend"}
    one = share_difference(make_profile(moves), "sw", by=by, tau=tau, norms="follow")
    swapped = tuple(tuple((b, a) for a, b in row) for row in moves)
    other = share_difference(make_profile(swapped), "sw", by=by, tau=tau, norms="follow")
    assert decisions(other) == {unit: mirror[made] for unit, made in decisions(one).items()}


@settings(max_examples=60, deadline=None)
@given(moves=tables, by=granularity)
def test_a_threshold_of_zero_blends_only_equal_shares(moves: Moves, by: str) -> None:
    assume(moved(moves))
    table = share_difference(make_profile(moves), "sw", by=by, tau=0.0)
    for unit, choice in table.items():
        if not unit.endswith(".norms"):
            assert (choice.decision == "blend") == (choice.share_safety == choice.share_language)


@settings(max_examples=60, deadline=None)
@given(moves=tables, by=granularity, fraction=st.floats(0.0, 2.0))
def test_a_relative_threshold_is_a_fraction_of_the_mean_share(
    moves: Moves, by: str, fraction: float
) -> None:
    assume(moved(moves))
    units = len(moves) * (1 if by == "layer" else 2)
    profile = make_profile(moves)
    relative = share_difference(profile, "sw", by=by, tau=fraction, tau_relative=True)
    assert relative == share_difference(profile, "sw", by=by, tau=fraction / units)
