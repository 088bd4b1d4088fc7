"""All of the ablation in one folder: tables in every format, and the figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from safeswap.errors import OutputError, SafeswapError
from safeswap.evaluation.benchmarks.splits import PARTS, Part
from safeswap.evaluation.results.candidates import read_measured
from safeswap.report.ablation.grid import candidates
from safeswap.report.ablation.heat_maps import draw_heat_maps
from safeswap.report.ablation.matched import matched_table
from safeswap.report.ablation.pareto import draw_pareto
from safeswap.report.ablation.table import QUESTIONS, ablation_table
from safeswap.report.evaluation import facts as facts_of
from safeswap.search.sweep_config import Sweep
from safeswap.tables import Facts, write_reports

if TYPE_CHECKING:
    from safeswap.evaluation.results.candidates import CandidateResult

_FIGURES: Mapping[str, tuple[str, Callable[..., None]]] = {
    "pareto": ("unsafe against right answers", draw_pareto),
    "heat-maps": ("unsafe and right answers over τ and α", draw_heat_maps),
}


def write_ablation(
    found: Sequence[CandidateResult],
    part: Part,
    folder: Path,
    loss: float = 0.01,
    facts: Facts = (),
) -> list[Path]:
    """Write ``ablation.md``, ``.tex``, ``.html``, a CSV of each table and the figures of every
    language.

    The figures are ``ablation-pareto-LANGUAGE.png`` and ``ablation-heat-maps-LANGUAGE.png``. One
    that cannot be drawn (no grid over τ and α, no figures of both kinds, no matplotlib) is left
    out, and a note below the first table says why.

    Args:
        found: what was measured, in all languages.
        part: which questions these are.
        loss: of ability, for the table at matched ability and the Pareto figure.
        facts: for the reports' head: models, date, settings (``safeswap.report.evaluation.facts``).

    Returns:
        What was written: the tables first.

    Raises:
        EvaluationError: no candidates, or another word for the part.
        OutputError: the folder cannot be written.
    """
    tables = [ablation_table(found, part), matched_table(found, loss, part)]
    figures: dict[str, str] = {}
    missing: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for language in dict.fromkeys(one.language for one in candidates(found)):
            code = re.sub(r"[^\w.-]", "-", language)
            for kind, (what, draw) in _FIGURES.items():
                file = f"ablation-{kind}-{code}.png"
                (folder / file).unlink(missing_ok=True)  # an older one would be of other figures
                more = {"loss": loss} if kind == "pareto" else {}
                try:
                    draw(found, language, folder / file, part, **more)
                except SafeswapError as error:
                    missing.append(f"No figure of {what}: {error}")
                else:
                    figures[file] = f"{language}, {QUESTIONS[part]}: {what}"
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}).") from error
    notes = (*tables[0].notes, *dict.fromkeys(missing))
    tables[0] = replace(tables[0], notes=notes)
    title = f"safeswap: ablation, {QUESTIONS[part]}"
    written = write_reports(
        tables, folder, name="ablation", title=title, figures=figures, facts=facts
    )
    return [*written, *(folder / file for file in figures)]


def write_sweep_reports(sweep: Sweep, results: Path) -> list[list[Path]]:
    """Write ``RESULTS/report-dev`` and ``report-test``: tables and figures of both sides.

    Args:
        results: the folder that ``safeswap.search.sweep.run_sweep`` filled.

    Returns:
        What was written for each side, the tables first.

    Raises:
        EvaluationError: the folder holds no results.
        OutputError: the folder cannot be written.
    """
    written = []
    for part in PARTS:
        found = [m for code in sweep.languages for m in read_measured(results / part / code, code)]
        folder, loss = results / f"report-{part}", sweep.rule.max_accuracy_drop
        facts = facts_of([results / part / code for code in sweep.languages])
        written.append(write_ablation(found, part, folder, loss, facts))
    return written
