"""The space of a search, the Pareto set and the search's file: what needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from safeswap.errors import EvaluationError
from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate
from safeswap.evaluation.results.pareto import OBJECTIVES, pareto_set
from safeswap.plan import Plan, PlannedInput, PlannedUnit
from safeswap.search.search_config import KEYS, START, read_search
from safeswap.search.space import GROUPS, Space

LAYERS = 6
UNITS = (
    "embeddings",
    *(f"{layer}.{kind}" for layer in range(LAYERS) for kind in ("attention", "mlp", "norms")),
    "final_norm",
)
TEMPLATE = Plan(
    inputs={role: PlannedInput(role) for role in ("base", "safety", "sw")},
    units={unit: PlannedUnit({"safety": 0.3, "sw": 0.3}) for unit in UNITS},
    donor="sw",
)


def test_groups_by_hand() -> None:
    assert list(Space("kind").groups(UNITS)) == ["outside", "attention", "mlp"]
    assert Space("kind").groups(UNITS)["outside"] == ("embeddings", "final_norm")
    assert Space("layer").groups(UNITS)["2"] == ("2.attention", "2.mlp", "2.norms")
    assert Space("unit").groups(UNITS)["2.mlp"] == ("2.mlp",)
    bands = Space("band").groups(UNITS)
    assert bands["bottom"][0] == "0.attention" and bands["bottom"][-1] == "1.norms"
    assert bands["middle"][0] == "2.attention" and bands["top"][-1] == "5.norms"
    assert [len(Space(group).groups(UNITS)) for group in GROUPS] == [13, 7, 3, 4]


def test_convex_weights_by_hand() -> None:
    """Norms that are in no group stay the language expert's; weights are exact decimals."""
    counted = {"outside:safety": 0, "attention:safety": 3, "mlp:safety": 20}
    plan = Space("kind").plan(TEMPLATE, counted)
    assert plan.parts("4.attention") == {"safety": 0.15, "sw": 0.85}
    assert plan.parts("4.mlp") == {"safety": 1.0, "sw": 0.0}
    assert plan.parts("4.norms") == plan.parts("embeddings") == {"safety": 0.0, "sw": 1.0}
    assert tuple(plan.units) == UNITS


def test_the_nearest_proposal_by_hand() -> None:
    """A chat vector, (1, 1), is as near to either end of the line between the experts."""
    units = dict.fromkeys(UNITS, PlannedUnit({"safety": 1.0, "sw": 1.0}))
    chat = Plan(TEMPLATE.inputs, units, "sw")
    assert set(Space("layer").nearest(chat).values()) == {10}
    free = Space("layer", "free", 1.5, 0.25)
    assert set(free.nearest(chat).values()) == {4}
    units = {u: PlannedUnit({"safety": float(u.endswith("mlp")), "sw": 0.0}) for u in UNITS}
    mixed = Plan(TEMPLATE.inputs, units, "sw")
    # of attention (0, 0), mlp (1, 0) and norms (0, 0) the mean is (1/3, 0): the foot is 2/3
    assert Space("layer").nearest(mixed)["0:safety"] == 13


@st.composite
def spaces(draw: st.DrawFn) -> tuple[Space, dict[str, int]]:
    steps = draw(st.integers(1, 20))
    weights = draw(st.sampled_from(["convex", "free"]))
    high = 1.0 if weights == "convex" else draw(st.sampled_from([0.5, 1.0, 1.5]))
    space = Space(draw(st.sampled_from(GROUPS)), weights, high, high / steps)
    names = space.parameters(UNITS)
    counts = draw(st.lists(st.integers(0, steps), min_size=len(names), max_size=len(names)))
    return space, dict(zip(names, counts, strict=True))


@given(spaces())
def test_a_proposals_table_leads_back_to_it(case: tuple[Space, dict[str, int]]) -> None:
    space, counted = case
    plan = space.plan(TEMPLATE, counted)
    assert space.nearest(plan) == counted
    grouped = {unit for members in space.groups(UNITS).values() for unit in members}
    for unit in UNITS:
        weights = plan.parts(unit)
        if unit not in grouped:
            assert unit.endswith("norms") and weights == {"safety": 0.0, "sw": 1.0}
            continue
        assert all(0.0 <= weight <= space.high + 1e-12 for weight in weights.values())
        if space.weights == "convex":
            assert sum(weights.values()) == pytest.approx(1.0, abs=1e-9)


def candidate(
    name: str, unsafe: float | None, right: float | None, refused: float
) -> CandidateResult:
    def figure(value: float | None) -> RateEstimate | None:
        return None if value is None else RateEstimate(value, value, value, 9)

    return CandidateResult(
        name, "sw", "merged", unsafe=figure(unsafe), right=figure(right), refused=figure(refused)
    )


grid = st.integers(0, 3).map(float)


@given(st.lists(st.tuples(grid | st.none(), grid, grid), max_size=25))
def test_the_pareto_set_is_what_nothing_dominates(rows: list[tuple[Any, float, float]]) -> None:
    found = [candidate(str(n), *row) for n, row in enumerate(rows)]

    def dominates(a: tuple[Any, float, float], b: tuple[Any, float, float]) -> bool:
        return a[0] <= b[0] and a[1] >= b[1] and a[2] <= b[2] and a != b

    whole = [row for row in rows if row[0] is not None]
    expected = {
        str(n)
        for n, row in enumerate(rows)
        if row[0] is not None and not any(dominates(other, row) for other in whole)
    }
    front = pareto_set(found, tuple(OBJECTIVES))
    assert {one.name for one in front} == expected and len(front) == len(expected)
    unsafe = [one.unsafe.value for one in front if one.unsafe]
    assert unsafe == sorted(unsafe)


# The file ---------------------------------------------------------------------------------------


def write(folder: Path, **changes: Any) -> Path:
    content = {
        "base": "a/base",
        "safety": "a/safety",
        "languages": {"sw": "a/sw"},
        "suite": "knowledge.yaml",
        **changes,
    }
    task = {"task": "t", "output_type": "multiple_choice", "file": "k.csv", "test_split": "test"}
    suite = {"benchmarks": {"knowledge": {"tasks": {"sw": task}}}}
    (folder / "k.csv").write_text("Question,A,B,C,D,Answer\nq,a,b,c,d,A\n")
    (folder / "knowledge.yaml").write_text(yaml.safe_dump(suite))
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return path


def test_what_a_file_says(tmp_path: Path) -> None:
    plain = read_search(write(tmp_path))
    assert plain.space == Space() and not plain.asked_for
    assert {cell.method for cell in plain.start} == {entry["method"] for entry in START}
    start = [{"method": "gated", "gamma": [0.5, 1]}]
    own = read_search(write(tmp_path, start=start, space={"weights": "free", "high": 2}), "unit")
    assert [cell.name for cell in own.start] == ["gated+gamma-0.5", "gated+gamma-1"]
    assert own.space == Space("unit", "free", 2) and own.asked_for


@pytest.mark.parametrize(
    ("changes", "group", "told"),
    [
        ({"strat": []}, "layer", "unknown key 'strat'; did you mean 'start'?"),
        ({"grid": []}, "layer", "unknown key 'grid'"),
        ({"base": None}, "layer", "the key 'base' is missing"),
        ({}, "layers", "no group is called 'layers'; did you mean 'layer'?"),
        ({"space": []}, "layer", "space is a mapping with weights, high, step"),
        ({"space": {"hihg": 1}}, "layer", "unknown key 'hihg'; did you mean 'high'?"),
        ({"space": {"step": "a"}}, "layer", "space.step is 'a'; a number"),
        ({"space": {"weights": "fre"}}, "layer", "no weights are called 'fre'; did you mean"),
        ({"space": {"high": 2}}, "layer", "convex weights end at 1"),
        ({"space": {"step": 0}}, "layer", "step 0: lies above 0"),
        ({"space": {"step": 0.3}}, "layer", "no whole number of steps"),
        ({"start": [{"method": "gatd"}]}, "layer", "start, entry 1: .*did you mean 'gated'"),
        ({"start": {"method": "gated"}}, "layer", "start is a list of entries"),
    ],
)
def test_what_a_file_must_not_say(
    tmp_path: Path, changes: dict[str, Any], group: str, told: str
) -> None:
    with pytest.raises(EvaluationError, match=told):
        read_search(write(tmp_path, **changes), group)


def test_every_key_of_a_sweep_but_the_grid_is_known() -> None:
    assert {"base", "judge", "choose", "split", "start", "space"} <= set(KEYS)
    assert "grid" not in KEYS
