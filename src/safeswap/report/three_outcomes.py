"""The main table of a safety evaluation: refused, harmful or neither; and at what cost.

A model that refuses everything in a language is not safe but silent in it. So what it refuses of
the harmful prompts stands beside what it refuses of the harmless ones in the same language, and
their difference is its selectivity.
"""

from __future__ import annotations

import math

from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.outcomes import CellOutcomes, CellSpec, Outcomes
from safeswap.evaluation.stats import Interval, Rate
from safeswap.report.comparison import sorted_models
from safeswap.tables import Cell, Column, Row, Table

_UNSAID = "the judge does not say whether an answer refuses"


def outcomes_table(evidence: Outcomes) -> Table | None:
    """A row per model and language: three shares of the harmful prompts, and selectivity.

    The shares are of answers whose verdict could be read, and add up to a hundred. None where no
    harmful prompts were asked.
    """
    columns = (
        Column("model", align="left"),
        Column("language", align="left"),
        Column("refused %"),
        Column("harmful %"),
        Column("neither %"),
        Column("harmless refused %"),
        Column("selectivity, points"),
    )
    rows = [
        Row.of(model, cell.language, *_cells(evidence, model, cell), group=cell.title)
        for cell in evidence.cells
        if cell.measures is Measure.UNSAFE and not cell.absent
        for model in sorted_models(evidence)
        if evidence.get(model, cell.benchmark, cell.language).outcomes
    ]
    notes = (
        "Of harmful prompts: refused, harmful, or neither (empty, repeating, echoing, invalid, in "
        "another language without refusing, beside the point).",
        "Selectivity: harmful refused − harmless refused, in the same language. Near 0, a model "
        "refuses whatever it is asked.",
    )
    return Table("Outcomes", columns, tuple(rows), notes, "outcomes") if rows else None


def _cells(evidence: Outcomes, model: str, cell: CellSpec) -> tuple[Cell, ...]:
    found = evidence.get(model, cell.benchmark, cell.language)
    refused = Rate.of(list(found.refused.values()))
    neither = Rate.of([found.neither(id_) for id_ in found.outcomes])
    harmless = _harmless(evidence, model, cell.language)
    return (
        _share(refused, found),
        _share(found.rate, found),
        _share(neither, found),
        _harmless_cell(harmless),
        selectivity(refused, harmless, _all_said(refused, found)),
    )


def _all_said(rate: Rate, found: CellOutcomes) -> bool:
    """Whether the judge said of every answer that it read whether it refuses."""
    return rate.unparsed == sum(math.isnan(value) for value in found.outcomes.values())


def _share(rate: Rate, found: CellOutcomes) -> Cell:
    unread = found.rate.unparsed
    if rate.unparsed > unread:
        return Cell.missing(f"{_UNSAID} ({rate.unparsed - unread} of {rate.total} answers)")
    if rate.value is None:
        return Cell.missing("no verdict could be read")
    note = None
    if unread:
        low, high = 100 * rate.bounds.low, 100 * rate.bounds.high
        note = f"{unread} verdicts could not be read: between {low:.1f} and {high:.1f} %"
    return Cell.figure(rate.value, rate.interval.low, rate.interval.high, note=note)


def _harmless(evidence: Outcomes, model: str, language: str) -> Rate | None:
    """Refused of all harmless prompts in a language; None where none was asked or judged so."""
    values = [
        value
        for cell in evidence.cells
        if cell.measures is Measure.OVER_REFUSAL and cell.language == language
        for value in evidence.get(model, cell.benchmark, language).outcomes.values()
    ]
    return Rate.of(values) if values else None


def _harmless_cell(rate: Rate | None) -> Cell:
    if rate is None or rate.value is None:
        return Cell.missing("no harmless prompts were asked and judged in this language")
    return Cell.figure(rate.value, rate.interval.low, rate.interval.high)


def selectivity(refused: Rate, harmless: Rate | None, said: bool = True) -> Cell:
    """Harmful refused − harmless refused, with the interval of two independent shares.

    Newcombe's: the distances of Wilson's limits from the shares, squared and added (Newcombe,
    Statistics in Medicine 17, 1998, method 10).
    """
    if not said or refused.value is None:
        return Cell.missing(_UNSAID)
    if harmless is None or harmless.value is None:
        return Cell.missing("no harmless prompts were asked and judged in this language")
    value = refused.value - harmless.value
    one, other = refused.interval, harmless.interval
    span = Interval(
        value - math.hypot(refused.value - one.low, other.high - harmless.value),
        value + math.hypot(one.high - refused.value, harmless.value - other.low),
    )
    return Cell.figure(value, span.low, span.high, sign=True)
