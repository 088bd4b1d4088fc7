"""The tables of uniform, band, gated and cosine against tables worked by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import HAND, make_profile
from safeswap.errors import PlanError
from safeswap.plan import Plan, check_options, fill_plan
from safeswap.profile import Profile
from safeswap.selectors.band import counts, decisions, scaled
from safeswap.selectors.common import unit_cosines


def weights(plan: Plan) -> dict[str, tuple[float, float]]:
    return {u: (row.weights["safety"], row.weights["sw"]) for u, row in plan.units.items()}


def with_head(profile: Profile) -> Profile:
    tensors = [replace(profile.tensors[0], name=unit, unit=unit) for unit in ("lm_head",)]
    return replace(profile, units=(*profile.units, "lm_head"), tensors=(*profile.tensors, *tensors))


@pytest.mark.parametrize(
    ("given", "pair"),
    [
        ({}, (0.5, 0.5)),
        ({"alpha": 0.25}, (0.25, 0.75)),
        ({"form": "task-arithmetic"}, (0.4, 0.4)),
        ({"form": "task-arithmetic", "scale": 1.0}, (1.0, 1.0)),
        ({"form": "chat-vector"}, (1.0, 1.0)),
        ({"form": "chat-vector", "gamma": 0.5}, (0.5, 1.0)),
        ({"form": "weights", "weight_safety": -0.25, "weight_language": 2.0}, (-0.25, 2.0)),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_uniform_gives_all_units_one_pair(
    given: dict[str, object], pair: tuple[float, float], skip: bool
) -> None:
    found = weights(
        fill_plan(with_head(make_profile(HAND)), method="uniform", skip_embeddings=skip, **given)
    )
    skipped = {"embeddings", "lm_head"} if skip else set()
    assert found == {unit: (0.0, 1.0) if unit in skipped else pair for unit in found}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gamma": 0.5}, "gamma goes with --set form=chat-vector, not with soup"),
        ({"form": "chat-vector", "alpha": 0.5}, "alpha goes with --set form=soup"),
        ({"form": "weights", "weight_safety": 1.0}, "needs --set weight_language=NUMBER"),
        ({"weight_safety": 1.0}, "weight_safety goes with --set form=weights"),
    ],
)
def test_uniform_parameters_of_another_form_are_refused(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        check_options("sw", method="uniform", **given)


# bottom, top, transition_bottom, transition_top: n · L / 32, halves up, by hand
SCALED = {
    4: (1, 1, 0, 0),  # 0.625, 0.25, 0.125
    8: (1, 1, 0, 0),  # 1.25, 0.5, 0.25
    12: (2, 1, 0, 0),  # 1.875, 0.75, 0.375
    16: (3, 1, 1, 1),  # 2.5, 1, 0.5
    24: (4, 2, 1, 1),  # 3.75, 1.5, 0.75
    28: (4, 2, 1, 1),  # 4.375, 1.75, 0.875
    32: (5, 2, 1, 1),
    36: (6, 2, 1, 1),  # 5.625, 2.25, 1.125
    48: (8, 3, 2, 2),  # 7.5, 3, 1.5
    80: (13, 5, 3, 3),  # 12.5, 5, 2.5
}


@pytest.mark.parametrize("layers", SCALED)
def test_band_scales_the_32_layer_default(layers: int) -> None:
    bottom, top, below, above = SCALED[layers]
    assert tuple(counts(layers).values()) == (bottom, top, below, above)
    middle = layers - sum(SCALED[layers])
    parts = ("language", "blend", "safety", "blend", "language")
    numbers = (bottom, below, middle, above, top)
    assert decisions(layers) == [p for p, n in zip(parts, numbers, strict=True) for _ in range(n)]


@given(count=st.integers(0, 32), layers=st.integers(1, 200))
def test_scaling_rounds_halves_up(count: int, layers: int) -> None:
    assert scaled(count, layers) == math.floor(Fraction(count * layers, 32) + Fraction(1, 2))


parts = st.tuples(*[st.none() | st.integers(0, 40)] * 4)


@given(layers=st.integers(1, 100), given=parts)
def test_band_covers_every_layer_or_is_refused(
    layers: int, given: tuple[int | None, int | None, int | None, int | None]
) -> None:
    halves = [math.floor(Fraction(n * layers, 32) + Fraction(1, 2)) for n in (5, 2, 1, 1)]
    own = given[0] is not None or given[1] is not None
    default = (max(1, halves[0]), max(1, halves[1]), *([0, 0] if own else halves[2:]))
    wanted = [d if g is None else g for g, d in zip(given, default, strict=True)]
    names = ("bottom", "top", "transition_bottom", "transition_top")
    asked = dict(zip(names, given, strict=True))
    if sum(wanted) >= layers:
        with pytest.raises(PlanError, match=f"none of the {layers} layers"):
            decisions(layers, **asked)
        return
    bottom, top, below, above = wanted
    made = decisions(layers, **asked)
    assert len(made) == layers
    assert made[:bottom] == ["language"] * bottom and made[layers - top :] == ["language"] * top
    inner = made[bottom : layers - top]
    assert inner[:below] == ["blend"] * below
    assert inner[len(inner) - above :] == ["blend"] * above
    assert set(inner[below : len(inner) - above]) == {"safety"}


def test_band_fixed_splits_have_no_transitions_of_their_own() -> None:
    assert counts(32, bottom=10, top=6) == {
        "bottom": 10, "top": 6, "transition_bottom": 0, "transition_top": 0,
    }  # fmt: skip
    assert counts(32, bottom=10, top=6, transition_top=2)["transition_top"] == 2
    assert counts(32, bottom=0, top=0)["bottom"] == 0


def test_band_takes_whole_layers_and_blends_outside() -> None:
    found = weights(fill_plan(make_profile(HAND), method="band", alpha=0.25))
    language, safety = (0.0, 1.0), (1.0, 0.0)
    wanted = {
        f"{layer}.{kind}": pair
        for layer, pair in enumerate((language, safety, language))
        for kind in ("attention", "mlp", "norms")
    }
    assert found == {"embeddings": (0.25, 0.75)} | wanted


def test_band_windows() -> None:
    assert decisions(6, windows="1-2,4") == [
        "language", "safety", "safety", "language", "safety", "language",
    ]  # fmt: skip
    plan = fill_plan(make_profile(HAND), method="band", windows=" 0-0, 2 ")
    assert plan.selector["windows"] == "0,2"
    assert weights(plan)["1.mlp"] == (0.0, 1.0) and weights(plan)["2.norms"] == (1.0, 0.0)


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-2,2-3", "4,1", "1-", "-1", "1;2"])
def test_band_windows_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match="give ranges of layers from the bottom up"):
        check_options("sw", method="band", windows=text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"windows": "0-3"}, "the model has layers 0 to 2"),
        ({"windows": "0", "top": 1}, "windows and top exclude each other"),
        ({"bottom": 2, "top": 1}, "leave none of the 3 layers to safety"),
    ],
)
def test_band_refuses_what_leaves_no_band(given: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        fill_plan(make_profile(HAND), method="band", **given)


def test_gated_keeps_the_language_whole_and_adds_where_safety_leads() -> None:
    """τ = 0.1: safety leads in layer 0, neither in layer 1, the language in layer 2."""
    given = {"tau": 0.1, "gamma": 0.8}
    plain = weights(fill_plan(make_profile(HAND), method="gated", **given))
    modules = {f"{layer}.{kind}" for layer in range(3) for kind in ("attention", "mlp")}
    open_units = {"0.attention", "0.mlp"}
    assert plain == {unit: (0.8 if unit in open_units else 0.0, 1.0) for unit in plain}
    half = weights(
        fill_plan(
            make_profile(HAND), method="gated", alpha=0.25, norms="follow", outside="blend", **given
        )
    )
    assert {u: half[u] for u in sorted(modules)} == {
        u: ({"0": 0.8, "1": 0.2, "2": 0.0}[u[0]], 1.0) for u in sorted(modules)
    }
    assert [half[f"{n}.norms"][0] for n in range(3)] == [0.8, 0.2, 0.0]
    assert half["embeddings"] == (0.2, 1.0)
    layered = fill_plan(make_profile(HAND), method="gated", by="layer", **given)
    assert layered.selector["norms"] == "follow" and weights(layered)["0.norms"] == (0.8, 1.0)


def with_inner(inner: dict[str, float]) -> Profile:
    profile = make_profile(HAND)
    changed = [replace(t, inner={"sw": inner.get(t.name, 0.0)}) for t in profile.tensors]
    return replace(profile, tensors=tuple(changed))


# by hand: ‖τ‖² of safety and language in 0.attention 3² + 4² = 25 and 0.6² + 0.8² = 1, so an inner
# product of 2 in sum is cos 2 / (5 · 1) = 0.4; in 2.mlp 3 / (2 · 5) = 0.3; by layer, layer 0 has
# norms √50 and √10, so 2 / √500
INNER = {"0.self_attn.q_proj": 1.5, "0.self_attn.o_proj": 0.5, "2.mlp.up": 3.0, "0.norm": 90.0}


def test_cosine_as_worked_by_hand() -> None:
    profile = with_inner(INNER)
    found = unit_cosines(profile, "sw", "module")
    assert found["0.attention"] == pytest.approx(0.4) and found["2.mlp"] == pytest.approx(0.3)
    assert found["1.mlp"] == 0.0
    assert unit_cosines(profile, "sw", "layer")["0"] == pytest.approx(2 / math.sqrt(500))
    table = weights(fill_plan(profile, method="cosine"))
    kept = {"embeddings", "0.attention", *(f"{n}.norms" for n in range(3))}
    assert table == {u: (0.0, 1.0) if u in kept else (0.2, 0.8) for u in table}
    low = weights(fill_plan(profile, method="cosine", threshold=0.3, alpha=0.5, outside="blend"))
    assert low["2.mlp"] == (0.0, 1.0) and low["embeddings"] == (0.5, 0.5)


def test_cosine_of_a_unit_that_did_not_move_is_zero_and_of_none_is_refused() -> None:
    still = (((0.0, 1.0), (0.0, 1.0), (1.0, 1.0)), ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0)))
    assert unit_cosines(make_profile(still), "sw", "module")["0.attention"] == 0.0
    none = tuple(tuple((0.0, b) for _, b in row) for row in HAND)
    with pytest.raises(PlanError, match=r"the safety expert .* is identical to the base"):
        fill_plan(make_profile(none), method="cosine")


def test_tables_that_need_no_profile_do_not_ask_for_moved_experts() -> None:
    still = make_profile((((0.0, 0.0),) * 3,) * 3)
    for method in ("uniform", "band"):
        assert fill_plan(still, method=method).language == "sw"


def projected(plan: Plan) -> set[str]:
    return {unit for unit, row in plan.units.items() if row.operator is not None}


def test_safe_lora_projects_the_least_aligned() -> None:
    """INNER gives 0.attention a cosine of 0.4, 2.mlp 0.3 and all others 0, in the model's order."""
    profile = with_inner(INNER)
    plan = fill_plan(profile, method="safe-lora", number=3)
    assert projected(plan) == {"0.mlp", "1.attention", "1.mlp"}
    assert all(str(plan.units[unit].operator) == "project" for unit in projected(plan))
    assert set(weights(plan).values()) == {(1.0, 1.0)}
    five = fill_plan(profile, method="safe-lora", number=5, start="base")
    assert "2.mlp" in projected(five) and "0.attention" not in projected(five)
    assert set(weights(five).values()) == {(0.0, 1.0)}
    low = fill_plan(profile, method="safe-lora", select="threshold", threshold=0.35)
    assert projected(low) == projected(five)
    layers = fill_plan(profile, method="safe-lora", by="layer", number=1)
    assert projected(layers) == {"1.attention", "1.mlp"}  # norms are not projected
    assert len(projected(fill_plan(profile, method="safe-lora"))) == 6  # the default, or all


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold": 0.3}, "threshold goes with --set select=threshold, not with number"),
        ({"select": "threshold", "number": 3}, "number goes with --set select=number"),
        ({"number": 7}, "--set number 7 is more than the 6 that can be projected by module"),
        ({"number": 0}, "--set number 0 is not valid: it must be 1 or more"),
    ],
)
def test_safe_lora_refuses(given: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        fill_plan(make_profile(HAND), method="safe-lora", **given)


def test_operators_go_into_the_plan_and_are_checked() -> None:
    profile = make_profile(HAND)
    plan = fill_plan(profile, method="uniform", operator={"name": "ties", "density": 0.5})
    assert plan.operator.plain == {"name": "ties", "density": 0.5}
    assert fill_plan(profile, operator="slerp").operator.plain == "slerp"
    refused: list[tuple[dict[str, Any], str]] = [
        ({"operator": "tise"}, "--operator: unknown operator 'tise'; did you mean 'ties'?"),
        ({"operator": {"name": "ties", "density": 0.0}},
         "density 0.0 is not valid: it must be a number in (0, 1]"),
        (
            {"operator": "slerp", "method": "uniform", "form": "weights",
             "weight_safety": -1.0, "weight_language": 2.0},
            "--method uniform: unit embeddings: operator slerp takes weights as parts of a whole",
        ),
    ]  # fmt: skip
    for options, message in refused:
        with pytest.raises(PlanError, match=re.escape(message)):
            fill_plan(profile, **options)


@pytest.mark.parametrize(
    ("method", "form", "given"),
    [
        ("soup", "soup", {"alpha": 0.25}),
        ("task-arithmetic", "task-arithmetic", {"scale": 0.7}),
        ("chat-vector", "chat-vector", {"gamma": 1.5, "skip_embeddings": True}),
    ],
)
def test_forms_of_uniform_are_methods_under_their_own_names(
    method: str, form: str, given: dict[str, Any]
) -> None:
    profile = with_head(make_profile(HAND))
    by_name = fill_plan(profile, method=method, **given)
    assert by_name.units == fill_plan(profile, method="uniform", form=form, **given).units
    assert by_name.selector == {"name": method, "skip_embeddings": False, **given}


def test_uniform_plans_show_the_shares_that_were_measured() -> None:
    profile = make_profile(HAND)
    shown = fill_plan(profile, method="chat-vector").units
    decided = fill_plan(profile, method="share-difference", by="module").units
    assert any(row.shares for row in shown.values())
    assert {u: row.shares for u, row in shown.items()} == {
        u: row.shares for u, row in decided.items()
    }
