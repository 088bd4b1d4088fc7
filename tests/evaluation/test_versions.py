"""Answers of one model that were made with two versions of an engine are said to be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safeswap.evaluation.generate import write_model_record
from safeswap.evaluation.models import EvaluatedModel
from safeswap.evaluation.results.store import read_json
from safeswap.report.evaluation import compare
from stored import HARM, Stored


def test_a_run_continued_with_another_version_is_noted(tmp_path: Path) -> None:
    stored = Stored(tmp_path / "r", {"harm/sw": HARM})
    stored.arm("one").judged("one", "harm/sw", "us" * 5)
    folder = tmp_path / "r"
    known = read_json(folder / "one" / "model.json")
    model = EvaluatedModel("one", "m", "m", str(known["digest"]))
    results: Any = SimpleNamespace(folder=folder)
    for version in ("5.0", "5.0", "5.1", "5.1"):
        about = {key: known[key] for key in ("backend", "dtype", "device") if key in known}
        responder: Any = SimpleNamespace(
            description={**about, "transformers": version, "torch": "2.0"}
        )
        write_model_record(results, model, responder.description)
        record = read_json(folder / "one" / "model.json")
        earlier = [text for text in record.get("earlier_versions", []) if "5." in text]
        assert earlier == ([] if version == "5.0" else ["transformers 5.0, torch 2.0"])
    notes = [note for table in compare([folder]) for note in table.notes]
    assert any("some answers of one" in note and "transformers 5.0" in note for note in notes)
