"""Rows of a plan as they are written and read without YAML's library: as it would or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap.errors import PlanError
from safeswap.plan import Plan
from safeswap.plan.lines import read_lines, row_line

numbers = st.floats(allow_nan=False, allow_infinity=False)
names = st.sampled_from(["safety", "sw", "no", "y", "on", "true", "null", "e", "zh-Hant", "a_1"])
tables = st.dictionaries(names, numbers, min_size=1, max_size=3)
HEAD = "format: safeswap-plan/1\ndonor: sw"


def rows() -> Any:
    full = st.fixed_dictionaries({"weights": tables, "shares": tables, "difference": numbers})
    return full | st.fixed_dictionaries({"weights": tables})


@settings(max_examples=150, deadline=None)
@given(row=rows())
def test_a_row_is_written_as_yaml_writes_it(row: dict[str, Any]) -> None:
    wanted = yaml.safe_dump(row, default_flow_style=True, sort_keys=False, width=10_000).strip()
    assert row_line(row) == wanted


@settings(max_examples=150, deadline=None)
@given(table=st.dictionaries(st.sampled_from(["0.mlp", "1.experts.7", "embeddings"]), rows()))
def test_rows_are_read_as_yaml_reads_them_or_left_to_it(table: dict[str, Any]) -> None:
    order = ("weights", "shares", "difference")
    ordered = {u: {key: row[key] for key in order if key in row} for u, row in table.items()}
    lines = [f"  {unit}: {row_line(row)}" for unit, row in ordered.items()]
    text = "\n".join([HEAD, "units:", *lines, ""])
    found = read_lines(text, yaml.safe_load)
    quoted = "'" in text or not table
    assert (found is None) == quoted
    if found is not None:
        assert found == yaml.safe_load(text)
        assert list(found["units"]) == list(table)


GOOD = "  0.mlp: {weights: {safety: 1.0, sw: 0.0}}"


@pytest.mark.parametrize(
    "line",
    [
        "  0.mlp: {weights: {safety: 1, sw: 0.0}}",  # whole numbers, comments and order are YAML's
        "  0.mlp: {weights: {safety: 1.0}} # mine",
        "  0.mlp: {operator: ties, weights: {safety: 1.0}}",
        "  0.mlp: {weights: {safety: 1.0, safety: 0.0}}",
        "  0.mlp: {weights: {true: 1.0, sw: 0.0}}",
        "  0.mlp: {weights: {safety: .5, sw: 0.0}}",
        "  0.mlp: {weights: {safety: 01.5, sw: 0.0}}",
        "  0.mlp: {weights: {safety: nan, sw: 0.0}}",
        "   0.mlp: {weights: {safety: 1.0}}",
        "0.mlp: {weights: {safety: 1.0}}",
        "",
        GOOD,  # twice
    ],
)
def test_whatever_is_written_otherwise_is_left_to_yaml(line: str) -> None:
    text = "\n".join([HEAD, "units:", GOOD, line, ""])
    assert read_lines(text, yaml.safe_load) is None


@pytest.mark.parametrize("head", ["units: {}", "- a list", "x: [", "", "a: b: c"])
def test_a_head_that_is_none_is_refused(tmp_path: Path, head: str) -> None:
    (tmp_path / "plan.yaml").write_text("\n".join([head, "units:", GOOD, ""]))
    with pytest.raises(PlanError):
        Plan.load(tmp_path / "plan.yaml")
