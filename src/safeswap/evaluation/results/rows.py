"""What each row and record of a results folder holds, field by field.

They are plain JSON objects, so they are typed as such: a misspelt key is found by mypy. A field
marked ``NotRequired`` is left out where its line says so; unknown fields of later versions are kept
and passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from safeswap.evaluation.backends import FinishReason
from safeswap.evaluation.judges import Verdict
from safeswap.evaluation.results.checked import RESPONSE, SCORE, VERDICT, Check, checked
from safeswap.evaluation.results.store import RESPONSES, SCORES, Row, read_rows
from safeswap.io.regular import shortened


class ResponseRow(TypedDict):
    """A line of ``responses.jsonl``: one prompt and what a model answered."""

    key: str
    """``BENCHMARK/LANGUAGE/ID``, unique in the file."""
    model: str
    """Digest of the model that answered (`EvaluatedModel.digest`)."""
    settings: str
    """Digest of the generation settings."""
    benchmark: str
    language: str
    """Code of the language that was asked in."""
    id: str
    """The prompt's; the same for its translations."""
    prompt: str
    """Without the chat template."""
    response: str
    """Without special tokens; empty where nothing was said."""
    prompt_tokens: int | None
    """Tokens with the template; None where the backend does not say."""
    new_tokens: int | None
    """Tokens generated; None where the backend does not say."""
    finish_reason: FinishReason
    """``length``: cut off at the limit; ``filtered``: withheld by the server."""
    reference: NotRequired[str]
    """The prompt in English; left out where there is none."""
    tags: NotRequired[list[str]]
    """The prompt's categories; left out where it has none."""


class VerdictRow(TypedDict):
    """A line of ``verdicts/JUDGE.jsonl``: what one judge said of one response."""

    key: str
    """Of the response's row."""
    verdict: Verdict
    """``unparsed`` where the judge's words could not be read; never taken for safe."""
    categories: list[str]
    """The judge's own names; empty where it names none."""
    refusal: bool | None
    """Whether the response refuses; None where the judge does not say."""
    flags: list[str]
    """What is wrong with the response as text, of `quality.FLAGS`."""
    judge_version: str
    """Another version's verdicts are made again."""
    response_digest: str
    """Of prompt and response: a verdict on another response is dropped."""
    raw: str
    """The judge's own words, or the number of the rule that decided."""


class ScoreParts(TypedDict):
    """The part of a score that says whether a question was answered rightly."""

    prompt_cut: NotRequired[bool]
    """True where the prompt was longer than the model takes; left out else."""
    right: int
    """1 or 0: by value for numbers, else by lm-eval's first metric (above a half)."""
    response: NotRequired[str]
    """What was generated; left out where choices were scored."""
    cut: NotRequired[bool]
    """Whether generation met its limit of tokens; left out with the response."""
    number: NotRequired[str | None]
    """The number read, None where none was found; left out where no number is asked for."""
    expected: NotRequired[str]
    """The right number; left out likewise."""


class ScoreRow(ScoreParts):
    """A line of ``scores.jsonl``: one question of an lm-eval task."""

    key: str
    """``BENCHMARK/LANGUAGE/TASK/NUMBER``, unique in the file."""
    benchmark: str
    language: str
    id: str
    """``TASK/NUMBER``; the number counts the task's documents from 0."""
    metrics: dict[str, float]
    """lm-eval's own; ``METRIC,FILTER`` where a task has several filters."""
    doc_hash: str
    prompt_hash: str
    """lm-eval's digests of the document and of the prompt."""
    cluster: str
    """What it is grouped by when intervals are made: a passage, or the question itself."""


class CompleteRow(TypedDict):
    """The line of ``scores.jsonl`` that says that a task is done."""

    key: str
    """``BENCHMARK/LANGUAGE/complete``."""
    items: int
    """How many questions it has."""


def read_responses(folder: Path) -> Iterator[ResponseRow]:
    """The responses in a model's folder.

    Raises:
        EvaluationError: a damaged line, or a key given twice.
    """
    return cast(Iterator[ResponseRow], _checked(folder / RESPONSES, RESPONSE))


def read_scores(folder: Path) -> tuple[list[ScoreRow], set[str]]:
    """The scores in a model's folder, and the keys of the tasks that are done.

    Raises:
        EvaluationError: a damaged line, or a key given twice.
    """
    rows = list(read_rows(folder / SCORES))
    scores = [row for row in rows if "items" not in row]
    for row in scores:
        checked(row, SCORE, f"{folder / SCORES}: {shortened(row['key'])}")
    whole = {row["key"] for row in rows if "items" in row}
    return [cast(ScoreRow, row) for row in scores], whole


def read_verdicts(path: Path) -> Iterator[VerdictRow]:
    """The verdicts of one judge's file.

    Raises:
        EvaluationError: a damaged line, or a key given twice.
    """
    return cast(Iterator[VerdictRow], _checked(path, VERDICT))


def _checked(path: Path, kinds: Mapping[str, Check]) -> Iterator[Row]:
    for row in read_rows(path):
        checked(row, kinds, f"{path}: {shortened(row['key'])}")
        yield row
