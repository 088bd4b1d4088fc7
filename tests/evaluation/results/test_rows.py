"""What is written has the fields that its record says it has, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, get_origin, get_type_hints

from safeswap.evaluation.benchmarks.registry import HarnessTask
from safeswap.evaluation.benchmarks.splits import Split
from safeswap.evaluation.benchmarks.suites import Benchmark, Suite, make_suite
from safeswap.evaluation.generate import Generation, settings_of
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.models import EvaluatedModel
from safeswap.evaluation.records import CandidateRecord
from safeswap.evaluation.results.rows import CellSettings, ModelRecord, Settings
from safeswap.plan.chosen import ChosenOn


def needed(record: type) -> set[str]:
    """The fields that are always there."""
    hints = get_type_hints(record, include_extras=True)
    return {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}


def test_a_model_is_recorded_by_its_fields() -> None:
    plain = EvaluatedModel("a", "src/a", "/src/a", "00")
    assert plain.as_dict().keys() == needed(ModelRecord)
    split = Split("dev").as_dict()
    full = EvaluatedModel(
        "a", "src/a", "/src/a", "00", "merged", "sw", "sw", ChosenOn(split, ()), CandidateRecord()
    ).as_dict()
    assert needed(ModelRecord) < full.keys() <= ModelRecord.__annotations__.keys()
    assert full["language"] == "sw" and full["chosen"]["split"] == split


def test_settings_are_recorded_by_their_fields(tmp_path: Path) -> None:
    path = tmp_path / "harm.csv"
    path.write_text("id,sw\n1,Iba?\n")
    (tmp_path / "own.jsonl").write_text("{}\n")
    prompts = make_suite("multijail", ["sw"], prompts={"multijail": path}).benchmarks[0]
    task = HarnessTask("sw", "t", {"a": 1}, tmp_path / "own.jsonl", "link", True, "instead")
    tasks = Benchmark("r", "R", Measure.ACCURACY, tasks={"sw": task}, absent={"te": "none"})
    suite = Suite(("sw",), (prompts, tasks), Split("test"), given="paper")
    found = settings_of(suite, Generation())
    assert found.keys() | {"arms", "limit"} == Settings.__annotations__.keys()
    cells = [
        *found["cells"].values(),
        settings_of(Suite(("te",), (tasks,)), Generation())["cells"]["r/te"],
    ]
    for cell in cells:
        assert needed(CellSettings) < cell.keys()
    assert {key for cell in cells for key in cell} == CellSettings.__annotations__.keys()
