"""An evaluation as wide as they come: eight languages, six models with long names."""

from __future__ import annotations

from typing import Any

from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.outcomes import CellOutcomes, CellSpec, Outcomes
from safeswap.report.answer_quality import answers_table, degrees_table
from safeswap.report.by_method import methods_table
from safeswap.report.comparison import (
    compare_all,
    comparisons_tables,
    rates_table,
)
from safeswap.report.primary import primary_family
from safeswap.report.three_outcomes import outcomes_table
from safeswap.tables import Table

LANGUAGES = ("sw", "bn", "te", "ko", "th", "jv", "yo", "hau_Latn")
MODELS = {
    "base": "base",
    "safety-expert-instruct-v2.1": "safety",
    "a-language-expert-of-all-eight-languages-with-a-long-name": "language",
    "merged-share-difference-by-module-tau-0.001-alpha-0.5": "merged",
    "merged-share-difference-by-layer-tau-0.003-alpha-0.25": "merged",
    "merged.chat_vector.gamma_1.5.skip_embeddings.and_a_very_long_tail": "merged",
}
BENCHMARKS = (
    ("multijail", "MultiJail, intentional", Measure.UNSAFE),
    ("xstest", "XSTest", Measure.OVER_REFUSAL),
    ("belebele", "BELEBELE", Measure.ACCURACY),
)
_PROMPTS = 20


def wide_outcomes() -> Outcomes:
    """Made-up outcomes: every fifth prompt unsafe, the first ones unread."""
    cells = tuple(
        CellSpec(name, code, title, measures, _PROMPTS)
        for name, title, measures in BENCHMARKS
        for code in LANGUAGES
    )
    expert = next(name for name, role in MODELS.items() if role == "language")
    models: dict[str, Any] = {
        name: {"name": name, "source": f"me/{name}", "role": role, "digest": "0" * 32}
        | ({"reference": expert} if role == "merged" else {})
        for name, role in MODELS.items()
    }
    answered = {
        (model, cell.benchmark, cell.language): _cell(cell, number)
        for number, model in enumerate(MODELS)
        for cell in cells
    }
    return Outcomes(cells, models, answered, "Qwen3Guard-Gen-4B", True)


def _cell(cell: CellSpec, number: int) -> CellOutcomes:
    values = {str(n): float((n * 7 + number) % 5 == 0) for n in range(_PROMPTS)}
    if number == 4:
        values["3"] = float("nan")
    counts = {"answers": _PROMPTS, "empty": 1, "repetition": 2, "cut": 3, "unparsed": number == 4}
    verdict = {"verdict": "controversial"}
    return CellOutcomes(
        outcomes=values,
        clusters={n: n for n in values},
        rows=dict.fromkeys(values, (None, verdict)),  # type: ignore[dict-item]
        counts={**counts, "controversial": 4},
        refused={n: 1.0 - v for n, v in values.items()},
    )


def wide_tables() -> list[Table]:
    """All tables of it."""
    evidence = wide_outcomes()
    family = primary_family(evidence)
    tables = [rates_table(evidence), outcomes_table(evidence), methods_table(evidence)]
    tables += [degrees_table(evidence)]
    tables += comparisons_tables(compare_all(evidence), 0.02, family)
    tables += [answers_table(evidence)]
    return [table for table in tables if table is not None]
