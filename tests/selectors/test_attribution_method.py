"""The method that takes units in order of what they bring, until a budget is used up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attributions import BRINGS, make_attribution
from profiles import HAND, make_profile
from safeswap.errors import PlanError, ProfileError
from safeswap.plan import Plan, edited_units, fill_plan
from safeswap.profile.attribution import Readouts
from safeswap.selectors import describe


@pytest.fixture
def file(tmp_path: Path) -> Path:
    make_attribution().save(tmp_path / "a.json")
    return tmp_path / "a.json"


def planned(file: Path, **given: Any) -> Plan:
    return fill_plan(make_profile(HAND[:2]), method="attribution", file=str(file), **given)


def taken(plan: Plan) -> dict[str, tuple[float, float]]:
    pairs = {unit: (row.weights["safety"], row.weights["sw"]) for unit, row in plan.units.items()}
    return {unit: pair for unit, pair in pairs.items() if pair != (0.0, 1.0)}


@pytest.mark.parametrize(
    ("given", "units"),
    [
        ({"count": 0}, []),
        ({"count": 2}, ["0.mlp", "1.attention"]),
        ({"count": 9}, ["0.mlp", "1.attention", "0.attention"]),
        ({"keeping": 0.0}, ["0.mlp"]),
        ({"keeping": 0.1}, ["0.mlp", "1.attention"]),
        ({"keeping": 0.29}, ["0.mlp", "1.attention"]),  # what 0.mlp gains is not set off
        ({"keeping": 0.31}, ["0.mlp", "1.attention", "0.attention"]),
        ({"keeping": 0.31, "count": 1}, ["0.mlp"]),
        ({"keeping": 0.31, "over": 3.0}, ["0.mlp", "0.attention"]),
    ],
)
def test_units_are_taken_until_the_budget_is_used_up(
    file: Path, given: dict[str, Any], units: list[str]
) -> None:
    assert taken(planned(file, **given)) == dict.fromkeys(units, (1.0, 1.0))


def test_added_with_a_weight_or_swapped(file: Path) -> None:
    assert taken(planned(file, count=1, gamma=0.5)) == {"0.mlp": (0.5, 1.0)}
    assert taken(planned(file, count=1, form="swap")) == {"0.mlp": (1.0, 0.0)}
    assert "gamma" not in planned(file, count=1, form="swap").selector


def test_by_layer_both_modules_go_and_norms_stay(file: Path) -> None:
    layers = {"0": Readouts(1.0, 0.0, -0.1), "1": Readouts(2.0, 0.0, -0.1)}
    make_attribution(layers, by="layer").save(file)
    assert list(taken(planned(file, count=1))) == ["1.attention", "1.mlp"]


def test_heads_count_for_their_attention(file: Path) -> None:
    """Two halves of 0.attention, of which one alone would be worth it."""
    halves = {"0.heads.0": Readouts(2.0, 0.0, -0.01), "0.heads.1": Readouts(-1.5, 0.0, -0.19)}
    make_attribution({**halves, "1.mlp": Readouts(1.0, 0.0, -0.1)}, by="head").save(file)
    assert list(taken(planned(file, count=1))) == ["1.mlp"]
    assert list(taken(planned(file, count=2))) == ["0.attention", "1.mlp"]


def test_a_plan_says_what_filled_it_and_is_filled_again(file: Path, tmp_path: Path) -> None:
    plan = planned(file, keeping=0.1)
    assert plan.selector["file"] == str(file) and len(plan.selector["digest"]) == 64
    said = describe(plan.selector)
    assert said == "attribution, file = a.json, keeping = 0.1, form = add, γ = 1, over = 0"
    plan.save(tmp_path / "plan.yaml")
    again = Plan.load(tmp_path / "plan.yaml")
    profile = make_profile(HAND[:2])
    assert again.units == plan.units and edited_units(again, profile) == ()
    assert again.chosen is not None and again.chosen.prompts == {"0123456789ab", "cdef01234567"}
    units = dict(again.units) | {"1.mlp": again.units["0.mlp"]}
    assert edited_units(Plan(**{**vars(again), "units": units}), profile) == ("1.mlp",)
    make_attribution({"0.mlp": BRINGS["0.mlp"]}).save(file)  # another file by now
    assert edited_units(again, profile) == (), "nobody knows what the other said"
    with pytest.raises(ProfileError, match="is not the file that the plan was made from"):
        planned(file, keeping=0.1, digest=plan.selector["digest"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs a budget: --set keeping=NATS"),
        ({"count": 1, "form": "swap", "gamma": 0.5}, "gamma goes with --set form=add"),
        ({"count": 1, "file": ""}, "--set file=FILE"),
        ({"keeping": -1.0}, "--set keeping -1.0 is not valid"),
        ({"count": 1, "form": "swop"}, "'swop' is unknown; did you mean 'swap'"),
    ],
)
def test_settings_that_cannot_be_are_refused(file: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        planned(**{"file": file, **given})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"language": "ko", "inputs": dict.fromkeys(("base", "safety", "ko"), "x")}, "is of ko"),
        ({"inputs": {"base": "base", "safety": "other", "sw": "sw"}}, "another safety checkpoint"),
        ({"units": {"7.mlp": BRINGS["0.mlp"]}}, r"profile has not \(7\.mlp\)"),
    ],
)
def test_a_file_of_something_else_is_refused(
    file: Path, changed: dict[str, Any], words: str
) -> None:
    make_attribution(**changed).save(file)
    with pytest.raises(ProfileError, match=rf"a\.json: is of .*{words}|{words}"):
        planned(file, count=1)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"no\.json: cannot be read"):
        planned(tmp_path / "no.json", count=1)
