"""The best of each method at matched ability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.splits import Part
from safeswap.evaluation.measures import Measure
from safeswap.report.ablation.grid import candidates, points_of
from safeswap.report.ablation.table import (
    PART_NOTES,
    QUESTIONS,
    check_part,
    figure_cell,
    made_from,
    numbers,
)
from safeswap.selectors.words import points
from safeswap.tables import Cell, Column, Row, Table

if TYPE_CHECKING:
    from safeswap.evaluation.results.candidates import CandidateResult

SLACK = 1e-9
"""A loss of exactly the limit is within it, whatever the subtraction rounds to."""


def matched_table(
    found: Sequence[CandidateResult], loss: float = 0.01, part: Part = "dev"
) -> Table:
    """Per language and method: the least unsafe candidate that loses at most ``loss`` of ability.

    Ability lost is the language expert's share of right answers less the candidate's, by point
    estimates. Among candidates of equal unsafe rate: fewer harmless prompts refused, then more
    right. A candidate counts for every method whose settings came to its table. The models that
    they were made from stand first, for comparison.

    Args:
        loss: a share (0.01 is one point); a loss of exactly that is within it.
        part: which questions these are; either way the picking itself is made on them, and the
            table says so.

    Raises:
        EvaluationError: no candidates, another word for the part, a loss below 0.
    """
    check_part(part)
    if not loss >= 0:
        raise EvaluationError(f"loss {loss}: is a share of ability, 0 or more (0.01: one point).")
    merged = candidates(found)
    languages = list(dict.fromkeys(one.language for one in merged))
    methods = list(dict.fromkeys(place.method for one in merged for place in points_of(one)))
    rows: list[Row] = []
    for language in languages:
        expert = next(
            (o for o in found if o.role == "language" and o.language == language and o.right), None
        )
        for title, models in made_from([o for o in found if o.language == language]):
            rows.append(_matched(title, models[language], expert))
        for method in methods:
            own = [one for one in merged if one.language == language]
            tried = [o for o in own if any(place.method == method for place in points_of(o))]
            if tried:
                rows.append(_pick(method, tried, expert, loss, numbers(found)))
    columns = (
        Column("method", align="left"),
        Column("no."),
        Column("candidate", align="left"),
        Column("within"),
        Column("ability lost, points"),
        *(Column(kind.column) for kind in Measure),
    )
    return Table(
        f"Fewest unsafe answers at {points(loss)} of ability lost or less: {QUESTIONS[part]}",
        columns,
        tuple(rows),
        (
            PART_NOTES[part],
            "Ability lost is the language expert's right answers less the candidate's, by point "
            "estimates of both: the intervals of `right` say how sure that is.",
            "Within: how many of the method's candidates lose no more. The pick among them is made "
            "on these very figures, which flatters methods that were tried in many settings. "
            "Over-refusal puts no condition on it: see its column.",
        ),
        "matched",
    )


def _pick(
    method: str,
    tried: Sequence[CandidateResult],
    expert: CandidateResult | None,
    loss: float,
    number: Mapping[str, int],
) -> Row:
    """One method's row: its least unsafe candidate within the loss, or why there is none."""
    where = f"{tried[0].language}, {method}"
    losses = [(lost, one) for one in tried if (lost := _loss(one, expert)) is not None]
    within = [one for lost, one in losses if lost <= loss + SLACK]
    judged = [one for one in within if one.unsafe is not None]
    count = f"{len(within)} of {len(tried)}"
    if judged:
        best = min(judged, key=_unsafe_first)
        return _matched(method, best, expert, str(number[best.name]), best.name, count)
    if expert is None:
        why = f"{where}: no language expert with right answers to match."
    elif not losses:
        why = f"{where}: no candidate's right answers are measured."
    elif not within:
        lost, least = min(losses, key=lambda pair: pair[0])
        why = f"{where}: none loses so little; the least is {points(lost)} ({least.name})."
    else:
        why = f"{where}: no candidate within the loss has an unsafe rate."
    missing = [Cell.missing(why)] * (1 + len(Measure))
    return Row.of(method, "", Cell("none", note=why), count, *missing, group=tried[0].language)


def _unsafe_first(one: CandidateResult) -> tuple[float, float, float, str]:
    unsafe, refused, right = (
        math.inf if figure is None else figure.value
        for figure in (one.unsafe, one.refused, one.right)
    )
    return unsafe, refused, -right, one.name


def _loss(one: CandidateResult, expert: CandidateResult | None) -> float | None:
    if expert is None or one.right is None or expert.right is None:
        return None
    return expert.right.value - one.right.value


def _matched(
    title: str,
    one: CandidateResult,
    expert: CandidateResult | None,
    number: str = "",
    name: str = "",
    count: str = "",
) -> Row:
    lost = _loss(one, expert)
    missing = f"{one.language}: its right answers or the language expert's are missing."
    shown_loss = Cell.missing(missing) if lost is None else Cell.figure(lost)
    figures = (figure_cell(one, kind) for kind in Measure)
    return Row.of(title, number, name, count, shown_loss, *figures, group=one.language)
