"""The choice is the rule's, and a plan says on what it was chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeswap.errors import EvaluationError, PlanError
from safeswap.evaluation.benchmarks.splits import Split
from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate
from safeswap.plan import ChosenOn, Plan, PlannedInput, PlannedUnit
from safeswap.search.selection import choose, record_choice
from safeswap.search.sweep_config import Rule


def one(
    name: str, unsafe: float, right: float | None, refused: float | None, role: str = "merged"
) -> CandidateResult:
    def figure(value: float | None) -> RateEstimate | None:
        return None if value is None else RateEstimate(value, 0.0, 1.0, 100)

    return CandidateResult(
        name, "sw", role, unsafe=figure(unsafe), right=figure(right), refused=figure(refused)
    )


EXPERT = one("sw", 0.9, 0.80, 0.05, "language")
ORIGINS = [one("base", 0.4, 0.5, 0.0, "base"), one("safety", 0.1, 0.5, 0.0, "safety"), EXPERT]
RULE = Rule(0.01, 0.02)


def test_the_lowest_unsafe_rate_among_those_let_in() -> None:
    found = [
        *ORIGINS,
        one("unable", 0.1, 0.78, 0.0),
        one("refuser", 0.1, 0.9, 0.071),
        one("good", 0.5, 0.79, 0.07),  # a loss of exactly one point, exactly two more refused
        one("worse", 0.6, 0.95, 0.0),
    ]
    choice = choose(found, RULE)
    assert choice.name == "good"
    assert "50.0 %, of the 2 of 4 candidates" in choice.why
    assert choose(found, Rule(0.02, 0.02)).name == "unable"
    assert choose(found, Rule(0.01, 0.03)).name == "refuser"


def test_ties_go_to_ability_then_to_the_first() -> None:
    found = [*ORIGINS, one("a", 0.5, 0.8, 0.0), one("b", 0.5, 0.9, 0.0), one("c", 0.5, 0.9, 0.0)]
    choice = choose(found, RULE)
    assert choice.name == "b"
    assert choice.why.endswith("; the first in the grid of 2 equals, with c")
    assert "equals" not in choose(found[:-1], RULE).why


def test_where_none_qualifies_none_is_chosen() -> None:
    choice = choose([*ORIGINS, one("a", 0.0, 0.5, 0.0)], RULE)
    assert choice.name == "" and "none of 1 candidates loses at most 1 points" in choice.why


def test_without_ability_there_is_no_condition_on_it() -> None:
    found = [one("sw", 0.9, None, None, "language"), one("a", 0.5, None, None)]
    choice = choose(found, RULE)
    assert choice.name == "a" and "neither ability nor harmless prompts" in choice.why


def test_without_the_expert_nothing_can_be_chosen() -> None:
    with pytest.raises(EvaluationError, match="nothing can be chosen"):
        choose([one("a", 0.5, 0.5, 0.0)], RULE)


share = st.integers(0, 100).map(lambda n: n / 100)


@given(st.lists(st.tuples(share, share, share), max_size=12), share, share)
def test_against_the_rule_by_hand(
    rows: list[tuple[float, float, float]], loss: float, refused: float
) -> None:
    found = [one(str(n), *row) for n, row in enumerate(rows)]
    # in hundredths, where nothing is rounded
    able = [
        n
        for n, (_, right, rejected) in enumerate(rows)
        if 80 - round(100 * right) <= round(100 * loss)
        and round(100 * rejected) - 5 <= round(100 * refused)
    ]
    expected = min(able, key=lambda n: (rows[n][0], -rows[n][1], n), default=None)
    chosen = choose([EXPERT, *found], Rule(loss, refused)).name
    assert chosen == ("" if expected is None else str(expected))


def plan() -> Plan:
    inputs = {role: PlannedInput(f"/{role}") for role in ("base", "safety", "sw")}
    return Plan(inputs, {"0.mlp": PlannedUnit({"safety": 1.0, "sw": 0.0})}, "sw")


def test_a_plan_keeps_on_what_it_was_chosen(tmp_path: Path) -> None:
    marked = record_choice(
        plan(), ChosenOn(Split("dev", 0.25, 3).as_dict(), ("harm/sw", "sums/sw"))
    )
    marked.save(tmp_path / "plan.yaml")
    read = Plan.load(tmp_path / "plan.yaml")
    assert read.chosen == marked.chosen and read.as_dict()["chosen"] == {
        "split": {"part": "dev", "fraction": 0.25, "seed": 3},
        "cells": ["harm/sw", "sums/sw"],
    }
    assert read.text() == marked.text()
    assert "chosen" not in plan().text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("chosen: [1]", "is a table of split and cells"),
        ("chosen: {splits: 1}", "unknown key 'splits'; did you mean 'split'"),
        ("chosen: {split: {part: dev}, cells: []}", "needs split"),
        ("chosen: {cells: [a/b]}", "needs split"),
    ],
)
def test_a_record_that_says_too_little_is_refused(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plan().text().replace("units:", f"{line}\nunits:"))
    with pytest.raises(PlanError, match=f"chosen: .*{said}|chosen: {said}"):
        Plan.load(path)
