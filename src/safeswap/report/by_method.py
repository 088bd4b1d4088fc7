"""The paper's arrangement of rates: a row per method, each language's own models in its columns.

Which method a merge is of stands in its record, taken from the merge's own manifest (``made``) or
from a sweep (``candidate``); nothing is read out of a display name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safeswap.errors import EvaluationError
from safeswap.evaluation.models import ROLE_TITLES
from safeswap.evaluation.records import CandidateRecord
from safeswap.evaluation.results.outcomes import Outcomes
from safeswap.evaluation.results.rows import ModelRecord
from safeswap.report.comparison import group_title, model_title, rate_cell, role_of, sorted_models
from safeswap.tables import Cell, Column, Row, Table


def methods_table(evidence: Outcomes) -> Table | None:
    """A row per method, and in each language that language's own models.

    Language experts share a row, and so do merges that were made in one way. None where no row
    would hold several models.
    """
    rows = _methods(evidence)
    if all(len(models) == 1 for models in rows.values()):
        return None
    columns = [Column("method", align="left")]
    cells = [cell for benchmark in evidence.benchmarks for cell in evidence.of(benchmark)]
    columns += [Column(cell.language, group_title(cell)) for cell in cells]
    made = []
    for method, models in rows.items():
        shown = []
        for cell in cells:
            model = models.get(cell.language) or models.get("")
            if model is None:
                reason = f"{cell.title}, {cell.language}: no such model of this language"
                shown.append(Cell.missing(reason))
            else:
                shown.append(rate_cell(evidence, model, cell, cell.language))
        made.append(Row.of(method, *shown))
    return Table(
        "Rates by method, each language's own models", tuple(columns), tuple(made), name="methods"
    )


def _methods(evidence: Outcomes) -> dict[str, dict[str, str]]:
    """Title → language → model; the language is empty for models of no language."""
    records = {name: _record(name, one) for name, one in evidence.models.items()}
    titles = _titles({name: one for name, one in records.items() if one is not None})
    rows: dict[str, dict[str, str]] = {}
    for model in sorted_models(evidence):
        record = evidence.models[model]
        code, role = str(record.get("language", "")), role_of(record)
        title = model_title(evidence, model)
        if code and role == "language":
            title = ROLE_TITLES[role]
        elif code:
            title = titles.get(model, title)
        if code in rows.get(title, {}):  # two of one kind: each by its own name
            title = model
        rows.setdefault(title, {})[code] = model
    return rows


def _record(name: str, model: ModelRecord) -> CandidateRecord | None:
    """How a merge was made; None for other models, and where an older folder does not say."""
    content = model.get("made") or model.get("candidate")
    if not content:
        return None
    try:
        found = CandidateRecord.from_dict(content, name)
    except EvaluationError:
        return None
    return found if found.method else None


def _titles(records: Mapping[str, CandidateRecord]) -> dict[str, str]:
    """Model → its method, with those settings in which models of that method differ."""
    found = {}
    for name, record in records.items():
        alike = [one for one in records.values() if one.method == record.method]
        keys = {key for one in alike for key in one.settings}
        telling = sorted(
            key for key in keys if len({repr(one.settings.get(key)) for one in alike}) > 1
        )
        shown = [f"{key}={_shown(record.settings.get(key))}" for key in telling]
        title = f"{record.method} ({', '.join(shown)})" if shown else record.method
        if record.operator_title != "linear":
            title = f"{title}, {record.operator_title}"
        found[name] = title
    return found


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
