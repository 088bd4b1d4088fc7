"""Where a candidate stands in its grid: from its record, through every file that holds it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap import selectors
from safeswap.errors import EvaluationError
from safeswap.evaluation.models import EvaluatedModel
from safeswap.evaluation.records import Alias, CandidateRecord
from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate, read_measured
from safeswap.evaluation.results.pareto import write_pareto
from safeswap.evaluation.results.store import write_json
from safeswap.operators import Operation, read_operation
from safeswap.report.ablation import ablation_table
from safeswap.report.ablation.grid import GridPoint, point_of, points_of, settled
from safeswap.report.ablation.heat_maps import grids
from safeswap.search.sweep_config import read_cells
from safeswap.selectors import registry


def stored(folder: Path, record: CandidateRecord, aliases: tuple[Alias, ...]) -> CandidateResult:
    """What is read back of a candidate whose model.json was written into a results folder."""
    model = EvaluatedModel("m", "in memory", "", "d", "merged", candidate=record, aliases=aliases)
    return read_folder(folder, model.as_dict())


def read_folder(folder: Path, model: dict[str, Any]) -> CandidateResult:
    write_json(folder / "settings.json", {"format": "safeswap-results/1", "cells": {}})
    write_json(folder / model["name"] / "model.json", model)
    (found,) = read_measured(folder, "sw")
    return found


def test_the_windows_of_a_band_come_back_as_given(tmp_path: Path) -> None:
    """They were read out of a name in which every comma had become a hyphen."""
    entry = {"method": "band", "windows": "4-9,14-20"}
    (cell,) = read_cells(tmp_path / "s.yaml", [entry], "sw")
    record = CandidateRecord(cell.method, cell.settings)
    found = stored(tmp_path / "r", CandidateRecord("uniform"), (Alias(cell.name, record),))
    alias = points_of(found)[1]
    assert alias.settings["windows"] == "4-9,14-20"
    assert alias == GridPoint("band", Operation(), settled("band", {"windows": "4-9,14-20"}))


def test_an_operator_with_a_hyphen_stays_beside_a_method_of_ones_own(
    tmp_path: Path,
) -> None:
    """It was read as ``linear`` with the settings {x: 1, dare: ties, drop: 0.5}."""
    own = selectors.Parameter("x", 1.0, "any number")
    entry = {"method": "mine", "x": 1, "operator": {"name": "dare-ties", "drop": 0.5}}
    selectors.selector("mine", summary="one", source="nobody", parameters=[own])(dict)
    try:
        (cell,) = read_cells(tmp_path / "s.yaml", [entry], "sw")
    finally:
        registry._SELECTORS.remove("mine")
    record = CandidateRecord(cell.method, cell.settings, read_operation(cell.operator, "grid"))
    found = stored(tmp_path / "r", record, (Alias(cell.name, record),))
    # read where nobody has registered the method, as on the machine that makes the report
    expected = GridPoint("mine", Operation("dare-ties", {"drop": 0.5}), {"x": 1})
    assert points_of(found) == [expected, expected]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False) | texts
names = st.sampled_from(["share-difference", "band", "uniform", "mine", "+a-b+", "search"])
tables = st.dictionaries(texts, values, max_size=4)
operations = st.builds(
    Operation, st.sampled_from(["linear", "dare-ties", "iso-c", "of-mine"]), tables
)
records = st.builds(CandidateRecord, names, tables, operations)


@settings(deadline=None, max_examples=60)
@given(records, st.lists(st.builds(Alias, texts, records), max_size=3).map(tuple))
def test_any_record_survives_every_file(
    tmp_path_factory: pytest.TempPathFactory,
    record: CandidateRecord,
    aliases: tuple[Alias, ...],
) -> None:
    folder = tmp_path_factory.mktemp("r")
    expected = [point_of(record), *(point_of(a.record) for a in aliases if a.record)]
    found = stored(folder / "results", record, aliases)
    assert points_of(found) == expected and found.aliases == aliases
    rated = replace(found, right=RateEstimate(0.5, 0.4, 0.6, 9))
    noted = json.loads(json.dumps(rated.as_dict()))  # as Optuna's database keeps it
    assert CandidateResult.from_dict(noted, "study") == rated
    write_pareto(folder / "pareto.json", [rated], {})
    (point,) = json.loads((folder / "pareto.json").read_text())["candidates"]
    assert CandidateResult.from_dict(point, "pareto.json") == rated


# Folders of earlier versions ----------------------------------------------------------------------


def old(name: str, operator: str, aliases: list[str], tau: float = 0.01) -> dict[str, Any]:
    """A candidate's model.json as it was: the operator in words, aliases by name."""
    made = {"method": "share-difference", "settings": {"tau": tau, "alpha": 0.5}}
    model = {"name": name, "source": "in memory", "location": "x", "digest": name}
    model |= {"role": "merged", "reference": "sw"}
    return {**model, "candidate": {**made, "operator": operator, "aliases": aliases}}


def test_an_older_folder_opens_and_says_what_has_no_place(tmp_path: Path) -> None:
    alias = "share-difference+tau-0.01+alpha-0.3"
    one = read_folder(tmp_path / "one", old("a", "linear", [alias]))
    two = read_folder(tmp_path / "two", old("b", "ties(density=0.2)", [], 0.001))
    assert one.aliases == (Alias(alias),)
    assert points_of(one) == [point_of(CandidateRecord("share-difference", one.settings))]
    table = ablation_table([one, two], "dev")
    assert (
        f"1 cell of an older results folder is known by name only and stands in no grid: {alias}."
        in table.notes
    )
    assert (
        "1 cell of an older results folder has an operator in words only and stands in no grid: "
        "b (ties(density=0.2))." in table.notes
    )
    # its own method and settings are certain, so they stay in the table
    column = [c.name for c in table.columns].index("τ, points")
    assert [row.cells[column].text for row in table.rows] == ["1", "0.1"]
    assert grids([one, two]) == []
    # and rewriting makes nothing up
    assert two.as_dict()["operator"] == "ties(density=0.2)" and one.as_dict()["aliases"] == [alias]


@pytest.mark.parametrize(
    ("words", "operator"),
    [
        ("linear", Operation()),
        ("dare-ties", Operation("dare-ties")),
        ("ties(density=0.2)", None),
        ("of-mine", None),
        ("regmean", None),  # its folder of matrices was left out of the words
    ],
)
def test_an_operator_in_words_is_read_where_it_is_certain(
    words: str, operator: Operation | None
) -> None:
    record = CandidateRecord.from_dict({"method": "uniform", "operator": words}, "model.json")
    assert record.operator == operator and record.operator_title == words


def test_an_older_study_s_figures_are_read() -> None:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    noted: dict[str, Any] = {"name": "m", "language": "sw", "role": "merged", "method": "gated"}
    noted |= {"settings": {"gamma": 1}, "operator": "slerp", "aliases": ["gated+gamma-1.0"]}
    found = CandidateResult.from_dict(
        {**noted, "unsafe": figure, "refused": None, "right": None}, ""
    )
    assert found.unsafe == RateEstimate(0.5, 0.4, 0.6, 9) and found.right is None
    assert found.record == CandidateRecord("gated", {"gamma": 1}, Operation("slerp"))


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        ([], r"model.json: its candidate cannot be \[\]"),
        ({"settings": 3}, "candidate: settings: is no table"),
        ({"operator": {"settings": {}}}, "operator needs a name"),
        ({"aliases": "a"}, "aliases are no list"),
        ({"aliases": [{"method": "gated"}]}, "alias 1: an alias needs a name"),
    ],
)
def test_a_damaged_record_is_refused_with_its_place(
    tmp_path: Path, candidate: Any, why: str
) -> None:
    model = {**old("a", "linear", []), "candidate": candidate}
    with pytest.raises(EvaluationError, match=why):
        read_folder(tmp_path, model)
