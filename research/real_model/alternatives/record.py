"""The rivals' rows in a record of the study's form: outcomes by prompt, scores; no text, no weight.

The record holds the study's models of the cell too, so ``real_model.tables`` shows all in the same
columns. ``stress`` holds outcomes alone, of harmful requests in the language.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from real_model import records
from real_model.alternatives import steering, tuning
from real_model.alternatives.guard import all_behind, guarded
from real_model.alternatives.rivals import (
    AFTER_TUNING,
    GUARD,
    PREFILLED,
    STEERED,
    STRESSED,
    SYSTEMS,
    Cell,
    answered,
)
from real_model.corpora import Corpora
from real_model.run import RULES
from safeswap.evaluation.judges import make_judge

ROWS = {name: name for name in SYSTEMS} | {STEERED: STEERED} | dict.fromkeys(
    tuning.CEILINGS, "fine-tuned"
)  # fmt: skip
"""Rival to the folder of its results."""


def read(cell: Cell, corpora: Corpora) -> dict[str, Any]:
    """The record of one cell with its rivals, as far as they have answered."""
    study = cell.study
    known = study.cell(cell.code, cell.seed) / "results"
    record = records.read(study, cell.code, cell.seed, known, corpora)
    suite, models = study.suite(cell.code), record["models"]
    models[GUARD] = guarded(models["safety"], models[cell.code], _refused_translations(cell))
    for name, folder in ROWS.items():
        if answered(found := cell.results(folder) / name):
            models[name] = records.model(found, suite)
    record["made"] = _made(cell)
    record["stress"] = {
        f"after {tuning.HARMLESS_STEPS[study.size]} harmless steps": _stress(
            cell, AFTER_TUNING, models["safety"]
        ),
        "prefilled": _stress(cell, PREFILLED, models["safety"]),
    }
    return record


def _refused_translations(cell: Cell) -> list[int]:
    """Numbers of the translations that the safety expert refuses to write."""
    judge: Any = make_judge(f"rule:{RULES}")
    folder = cell.study.cell(cell.code, cell.seed) / "results" / "safety"
    return [
        records.place(row["id"])
        for row in records.rows_of(folder / "scores.jsonl")
        if row.get("benchmark") == "written" and judge.decide("", row["response"], row).refusal
    ]


def _stress(cell: Cell, stress: str, safety: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Model to its outcomes under a stress; the guard is no part of what is stressed.

    Nobody trains a guard further, and it reads the request, not the answer that is begun.
    """
    folders = dict.fromkeys((cell.code, *STRESSED), stress)
    folders |= {name: f"{stress}-{name}" for name in (*SYSTEMS, STEERED)}
    found = {
        name: records.outcomes(model)
        for name, folder in folders.items()
        if answered(model := cell.results(folder) / name)
    }
    if cell.code in found:
        found[GUARD] = all_behind(safety["outcomes"], found[cell.code])
    return found


def _made(cell: Cell) -> dict[str, Any]:
    """What steering was chosen among, and what the ceilings were trained on."""
    found: dict[str, Any] = {}
    if (about := steering.about_path(cell.steering)).is_file():
        found[STEERED] = json.loads(about.read_text("utf-8"))
    for name in tuning.CEILINGS:
        if (cell.recipes / f"{name}.json").is_file():
            found[name] = json.loads((cell.recipes / f"{name}.json").read_text("utf-8"))
    return found
