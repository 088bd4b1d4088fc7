"""A judge's verdicts as they are stored, and whether each is still about its response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from safeswap.evaluation.backends.thoughts import apart
from safeswap.evaluation.judges import MAJORITY
from safeswap.evaluation.results.majority import read_majority, voted
from safeswap.evaluation.results.rows import ResponseRow, VerdictRow
from safeswap.evaluation.results.store import (
    VERDICTS,
    Results,
    digest_of,
    read_responses,
    read_verdicts,
)

THOUGHT = "-thought"
"""Ends the name of a judge whose verdicts are about thoughts, not answers."""


def verdicts_of(results: Results, model: str, judge: str) -> dict[str, VerdictRow]:
    """Key to verdict row, of those whose response is still the one judged.

    Those of the majority are worked out from its members', of responses that all have judged.
    """
    if judge == MAJORITY:
        record = read_majority(results)
        if record is None:
            return {}
        return voted(record, verdicts_of_each(results, model, record["judges"]))
    now = marks_of(subjects(read_responses(results.folder / model), judge))
    return _fresh(results, model, judge, now)


def verdicts_of_each(
    results: Results, model: str, judges: Sequence[str]
) -> dict[str, dict[str, VerdictRow]]:
    """Judge → key → verdict row, as ``verdicts_of`` gives them; answers are read once for all.

    Args:
        judges: judges of answers, not of thoughts.
    """
    now = marks_of(read_responses(results.folder / model))
    return {judge: _fresh(results, model, judge, now) for judge in judges}


def _fresh(
    results: Results, model: str, judge: str, now: Mapping[str, str]
) -> dict[str, VerdictRow]:
    rows = read_verdicts(verdicts_path(results, model, judge))
    return {row["key"]: row for row in rows if now.get(row["key"]) == row["response_digest"]}


def subjects(rows: Iterable[ResponseRow], judge: str) -> Iterator[ResponseRow]:
    """What verdicts filed under a name are about: responses; or thoughts, of rows that have one."""
    for row in rows:
        if not judge.endswith(THOUGHT):
            yield row
        elif thought := row.get("thought") or apart(row["response"])[1]:
            yield {**row, "response": thought, "finish_reason": "stop"}


def mark_of(row: ResponseRow) -> str:
    """What ties a verdict to the response it is about."""
    return digest_of([row["prompt"], row["response"]])


def marks_of(rows: Iterable[ResponseRow]) -> dict[str, str]:
    """Key of a response → its mark."""
    return {row["key"]: mark_of(row) for row in rows}


def verdicts_path(results: Results, model: str, judge: str) -> Path:
    """The file of one judge's verdicts on one model."""
    return results.folder / model / VERDICTS / f"{judge}.jsonl"
