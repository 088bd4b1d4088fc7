"""The Pareto set: what no other candidate beats in one figure without losing in another."""

from __future__ import annotations

from collections.abc import Sequence

from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate
from safeswap.search.worker import Searched
from safeswap.tables import Cell, Column, Row, Table


def searched_table(found: Searched) -> Table:
    """The Pareto set that a search found in one language."""
    title = (
        f"Pareto set, {found.language}: {len(found.front)} of {found.tables} tables measured (dev)"
    )
    return pareto_table(found.front, found.objectives, title)


def pareto_table(
    front: Sequence[CandidateResult], objectives: Sequence[Measure], title: str
) -> Table:
    """Rows: the set; columns: objectives with their intervals."""
    columns = (
        Column("candidate", align="left"),
        Column("method", align="left"),
        *(Column(f"{k.words} % {k.arrow}") for k in objectives),
    )
    rows = tuple(
        Row.of(one.name, one.method or one.role, *(_cell(one.figure(k)) for k in objectives))
        for one in front
    )
    note = "Dev questions, and the best of many: no test result."
    return Table(title, columns, rows, (note,), "pareto")


def _cell(figure: RateEstimate | None) -> Cell:
    if figure is None:
        return Cell.missing("not measured")
    return Cell.figure(figure.value, figure.low, figure.high)
