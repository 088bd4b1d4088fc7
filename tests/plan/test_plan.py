"""Plans: filled from a profile, exact through their file, and read strictly."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles import HAND, make_profile
from safeswap.anatomy import Anatomy, Placement
from safeswap.errors import OutputError, PlanError
from safeswap.plan import Plan, PlannedInput, PlannedUnit, check_options, check_units, fill_plan

UNITS = make_profile(HAND).units


def hand_plan(**options: object) -> Plan:
    return fill_plan(make_profile(HAND), **{"tau": 0.1, **options})  # type: ignore[arg-type]


def test_decisions_become_weights() -> None:
    plan = hand_plan(alpha=0.3)
    weights = {unit: (row.weights["safety"], row.weights["sw"]) for unit, row in plan.units.items()}
    assert weights["0.attention"] == (1.0, 0.0)
    assert weights["1.mlp"] == (0.3, 0.7)
    assert weights["2.mlp"] == (0.0, 1.0)
    assert weights["1.norms"] == (0.0, 1.0)  # the paper's choice by module
    assert weights["embeddings"] == (0.3, 0.7)
    assert tuple(plan.units) == UNITS
    assert plan.donor == "sw"
    assert plan.counts()["attention"] == {"safety": 1, "blend": 1, "sw": 1}


def test_by_layer_the_norms_follow_and_by_module_they_stay() -> None:
    layer, module = hand_plan(by="layer"), hand_plan()
    assert [layer.units[f"{n}.norms"].decision for n in range(3)] == ["safety", "blend", "sw"]
    assert [module.units[f"{n}.norms"].decision for n in range(3)] == ["sw"] * 3
    assert layer.selector["norms"] == "follow" and module.selector["norms"] == "language"


@pytest.mark.parametrize(
    ("outside", "weights"),
    [("blend", (0.25, 0.75)), ("language", (0, 1)), ("safety", (1, 0)), ("base", (0, 0))],
)
def test_what_lies_outside_the_layers(outside: str, weights: tuple[float, float]) -> None:
    row = hand_plan(alpha=0.25, outside=outside).units["embeddings"]
    assert (row.weights["safety"], row.weights["sw"]) == weights
    assert row.shares is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "layers"}, "--by 'layers' is unknown; did you mean 'layer'?"),
        ({"norms": "folow"}, "did you mean 'follow'?"),
        ({"outside": "bases"}, "did you mean 'base'?"),
        ({"tau": -0.1}, "--tau -0.1 is not valid"),
        ({"tau": float("nan")}, "--tau nan is not valid"),
        ({"tau": float("inf")}, "--tau inf is not valid"),
        ({"alpha": 1.01}, "--alpha 1.01 is not valid: it must be from 0 to 1"),
        ({"alpha": float("nan")}, "--alpha nan is not valid"),
        ({"donor": "safty"}, "--donor 'safty' is unknown; did you mean 'safety'?"),
        ({"language": "ws"}, "language 'ws' is not in the profile; did you mean 'sw'?"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        hand_plan(**options)
    if "language" not in options:
        with pytest.raises(PlanError, match=re.escape(message)):
            check_options("sw", **options)  # type: ignore[arg-type]


def test_one_of_several_languages_must_be_chosen() -> None:
    profile = make_profile(HAND)
    several = replace(profile, inputs={**profile.inputs, "te": profile.inputs["sw"]})
    with pytest.raises(PlanError, match=r"has 2 languages \(sw, te\)"):
        fill_plan(several)
    assert fill_plan(several, "sw").language == "sw"


names = st.sampled_from(["sw", "no", "on", "y", "null", "true", "e1", "zh-Hant", "N"])
numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=80, deadline=None)
@given(language=names, rows=st.lists(st.tuples(numbers, numbers), min_size=7, max_size=7))
def test_the_file_keeps_every_weight_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    language: str,
    rows: list[tuple[float, float]],
) -> None:
    units = ["embeddings", *(f"{n}.{k}" for n in (0, 10) for k in ("attention", "mlp", "norms"))]
    plan = Plan(
        inputs={role: PlannedInput(f"org/{role}", "ab") for role in ("base", "safety", language)},
        units={
            unit: PlannedUnit({"safety": a, language: b})
            for unit, (a, b) in zip(units, rows, strict=True)
        },
        donor=language,
        selector={"name": "share-difference", "tau": 1e-05, "tau_relative": True},
    )
    path = tmp_path_factory.getbasetemp() / "plan.yaml"
    plan.save(path)
    loaded = Plan.load(path)
    assert loaded == plan
    assert list(loaded.units) == units
    assert len([line for line in path.read_text().splitlines() if "weights:" in line]) == 7


def test_shares_go_along_and_decide_nothing(tmp_path: Path) -> None:
    plan = hand_plan()
    plan.save(tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text()
    loaded = Plan.load(tmp_path / "plan.yaml")
    assert loaded.units["0.mlp"].shares == pytest.approx(plan.units["0.mlp"].shares, abs=1e-9)
    assert loaded.text() == text
    without = re.sub(r", shares: \{.*?\}, difference: [-0-9.e]+", "", text)
    assert without != text
    (tmp_path / "plan.yaml").write_text(without)
    bare = Plan.load(tmp_path / "plan.yaml")
    assert {u: r.weights for u, r in bare.units.items()} == {
        u: r.weights for u, r in plan.units.items()
    }


GOOD = """\
format: safeswap-plan/1
inputs:
  base: {source: org/base}
  safety: {source: org/safety}
  no: {source: org/norwegian}
units:
  0.attention: {weights: {safety: 1}}
  0.mlp: {weights: {safety: 1e-3, no: 9.99E-1}}
  0.norms: {weights: {no: 1.0}}
"""


def load(tmp_path: Path, text: str) -> Plan:
    (tmp_path / "plan.yaml").write_text(text)
    return Plan.load(tmp_path / "plan.yaml")


def test_a_plan_by_hand_may_be_short(tmp_path: Path) -> None:
    plan = load(tmp_path, GOOD)
    assert plan.language == "no" and plan.donor == "no" and plan.operator.plain == "linear"
    assert plan.units["0.attention"].weights == {"safety": 1.0, "no": 0.0}
    assert plan.units["0.mlp"].weights == {"safety": 0.001, "no": 0.999}
    assert plan.units["0.mlp"].decision == "blend"
    assert plan.inputs["no"] == PlannedInput("org/norwegian", "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format: safeswap-plan/1", "format: safeswap-plan/9", "is not a safeswap-plan/1 file"),
        ("units:", "unit:", "unknown key 'unit'; did you mean 'units'?"),
        ("{source: org/base}", "{sorce: org/base}", "input base needs a source"),
        ("org/base}", "org/base, digst: a}", "unknown key 'digst'; did you mean 'digest'?"),
        ("org/base}", "org/base, digest: 12}", "digest must be text"),
        ("  base:", "  bass:", "inputs must be base, safety and one language"),
        ("{weights: {safety: 1}}", "{weight: {safety: 1}}", "'weight'; did you mean 'weights'?"),
        ("{weights: {safety: 1}}", "{weights: 1}", "unit 0.attention: needs weights"),
        ("{safety: 1}}", "{safety: 1}, difference: 1}", "has a difference without shares"),
        (
            "{safety: 1}}",
            "{safety: 1}, shares: {safety: 0.5, no: 0.25}, difference: big}",
            "difference is 'big'; a finite number is needed",
        ),
        (
            "{safety: 1}}",
            "{safety: 1}, shares: {safety: 0.5, no: 0.25}, difference: 0.3}",
            "difference is 0.3, but its shares differ by 0.250000000",
        ),
        ("{safety: 1}}", "{safety: 1}, share: 1}", "unknown key 'share'; did you mean 'shares'?"),
        ("{safety: 1}}", "{safty: 1}}", "unknown expert 'safty'; did you mean 'safety'?"),
        ("{safety: 1}}", "{base: 1}}", "unknown expert 'base'"),
        ("{safety: 1}}", "{safety: .nan}}", "safety is nan; a finite number is needed"),
        ("{safety: 1}}", "{safety: .inf}}", "a finite number is needed"),
        ("{safety: 1}}", "{safety: 1e400}}", "a finite number is needed"),
        ("{safety: 1}}", "{safety: 1" + "0" * 400 + "}}", "a finite number is needed"),
        ("{safety: 1}}", "{safety: true}}", "safety is True; a finite number is needed"),
        ("{safety: 1}}", "{safety: '1'}}", "safety is '1'; a finite number is needed"),
        ("{safety: 1}}", "{safety: yes}}", "safety is 'yes'; a finite number is needed"),
        ("{safety: 1}}", "{safety: }}", "safety is None; a finite number is needed"),
        ("{safety: 1}}", "{safety: 1, safety: 0}}", "the key 'safety' is given twice"),
        ("{safety: 1}}", "{safety: 1}, shares: {safety: 1}}", "shares must name safety and no"),
        ("{safety: 1}}", "[1, 0]", "is not YAML"),
        ("0.attention", "0.atention", "'0.atention' is not a unit; did you mean '0.attention'?"),
        ("0.attention", "0.mlp", "the key '0.mlp' is given twice"),
        ("0.attention", "embedding", "did you mean 'embeddings'?"),
        ("units:", "donor: te\nunits:", "donor 'te' is not an input"),
        ("units:", "operator: liner\nunits:", "'liner'; did you mean 'linear'?"),
        ("units:", "selector: 3\nunits:", "selector must be a table"),
        ("units:", "profile: 3\nunits:", "profile a path"),
        (
            "units:",
            "selector: {name: share-difference, taus: 1}\nunits:",
            "unknown key 'taus'; did you mean 'tau'?",
        ),
        ("no: {source", "true: {source", "the key True is not a name; quote it"),
        ("inputs:", "inputs: {}\ninput:", "unknown key 'input'; did you mean 'inputs'?"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(PlanError, match=re.escape(message)):
        load(tmp_path, GOOD.replace(old, new, 1))


@pytest.mark.parametrize("text", ["", "- a", "3", "a: [", "\0"])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PlanError, match=r"is not (a safeswap-plan/1 file|YAML)"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("{safety: 1}}", "[1, 0]", "line 8, column 3: is not YAML"),
        ("0.attention", "0.mlp", "line 8, column 3: the key '0.mlp' is given twice"),
        ("format", "[a]", "line 1, column 1: the key"),
    ],
)
def test_a_mistake_is_found_by_line_and_column(
    tmp_path: Path, old: str, new: str, place: str
) -> None:
    with pytest.raises(PlanError, match=re.escape(f"plan.yaml, {place}")):
        load(tmp_path, GOOD.replace(old, new, 1))


def test_a_plan_that_cannot_be_saved_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load(tmp_path, GOOD)
    place = tmp_path / "saved.yaml"
    place.write_text("edited by hand")

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OutputError, match=r"saved\.yaml: writing failed.*Free some space"):
            plan.save(place)
    assert place.read_text() == "edited by hand"
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "link.yaml").symlink_to(place)
    plan.save(tmp_path / "link.yaml")  # through a link, which stays one
    assert Plan.load(place) == plan and (tmp_path / "link.yaml").is_symlink()


def test_a_plan_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(PlanError, match="cannot be read"):
            Plan.load(path)


def having(*units: str) -> Anatomy:
    """A model of one tensor in each unit."""
    return Anatomy({f"{unit}.weight": Placement(unit, "projection") for unit in units}, units, 1)


def test_the_table_must_name_exactly_the_units_of_the_model(tmp_path: Path) -> None:
    plan = load(tmp_path, GOOD)
    check_units(plan, having("0.attention", "0.mlp", "0.norms"))
    with pytest.raises(PlanError, match=r"unit 'embeddings' is missing \(2 in all\)"):
        check_units(plan, having("embeddings", "0.attention", "0.mlp", "0.norms", "final_norm"))
    with pytest.raises(PlanError, match=r"no unit '0.norms'; did you mean '1.norms'"):
        check_units(plan, having("0.attention", "0.mlp", "1.norms"))


@pytest.mark.parametrize(
    ("weights", "decision"),
    [
        ((1, 0), "safety"),
        ((0, 1), "sw"),
        ((0, 0), "base"),
        ((0.3, 0.7), "blend"),
        ((0.5, 0), "mix"),
        ((1, 1), "mix"),
        ((1.5, -0.5), "mix"),
    ],
)
def test_what_a_row_is_called(weights: tuple[float, float], decision: str) -> None:
    assert PlannedUnit({"safety": weights[0], "sw": weights[1]}).decision == decision
