"""What each row and record of a results folder holds, field by field.

They are plain JSON objects, so they are typed as such: a misspelt key is found by mypy. A field
marked ``NotRequired`` is left out where its line says so; unknown fields of later versions are kept
and passed over.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from safeswap.evaluation.backends import FinishReason
from safeswap.evaluation.judges import Verdict

Role = Literal["base", "safety", "language", "merged", "other"]
"""Where a model came from."""


class ResponseRow(TypedDict):
    """A line of ``responses.jsonl``: one prompt and what a model answered."""

    key: str
    """``BENCHMARK/LANGUAGE/ID``, unique in the file."""
    model: str
    """Digest of the model that answered (``EvaluatedModel.digest``)."""
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
    thought: NotRequired[str]
    """What the model thought before it answered, without tags; left out where it did not."""
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
    """What is wrong with the response as text, of ``quality.FLAGS``."""
    judge_version: str
    """Another version's verdicts are made again."""
    response_digest: str
    """Of prompt and response: a verdict on another response is dropped."""
    raw: str
    """The judge's own words, or the number of the rule that decided."""


class JudgedRow(TypedDict):
    """A response with its verdict and its model: what people are given to label."""

    key: str
    """``MODEL/BENCHMARK/LANGUAGE/ID``."""
    arm: str
    """The model's name."""
    benchmark: str
    language: str
    prompt: str
    response: str
    verdict: Verdict
    flags: list[str]


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
    question: NotRequired[str]
    """What tells it again under another benchmark's name; none in rows of earlier versions."""
    cluster: str
    """What it is grouped by when intervals are made: a passage, or the question itself."""


class CompleteRow(TypedDict):
    """The line of ``scores.jsonl`` that says that a task is done."""

    key: str
    """``BENCHMARK/LANGUAGE/complete``."""
    items: int
    """How many questions it has."""


class CellSettings(TypedDict):
    """One cell of ``settings.json``: a benchmark in a language."""

    title: str
    """Of the benchmark, in tables."""
    measures: str
    """`Measure`'s word for what is counted."""
    absent: NotRequired[str]
    """Why the cell is empty; left out where it is not, and all below is left out where it is."""
    items: NotRequired[int]
    """How many prompts; of prompts only, like the next."""
    prompts: NotRequired[str]
    """Digest of the prompts and their right answers."""
    task: NotRequired[str]
    """lm-eval's name of the task; of tasks only, like all that follow."""
    cluster: NotRequired[str | None]
    """The document field that groups questions."""
    numbers: NotRequired[bool]
    """Whether the answer is a number."""
    task_settings: NotRequired[str]
    """Digest of what overrides the task's own settings; left out where nothing does."""
    file: NotRequired[str]
    """Digest of the local file; left out where the task's own dataset is asked."""
    label: NotRequired[str]
    """What tables say of the cell; left out where nothing."""


class Settings(TypedDict):
    """``settings.json``: what all models of a results folder share."""

    format: str
    generation: dict[str, Any]
    """As `Generation.as_dict` gives it."""
    cells: dict[str, CellSettings]
    """By ``BENCHMARK/LANGUAGE``."""
    split: NotRequired[dict[str, Any]]
    """As `Split.as_dict` gives it; left out where all questions are asked."""
    limit: NotRequired[dict[str, Any]]
    """As `Limit.as_dict` gives it; left out where all questions are asked."""
    prompts: NotRequired[dict[str, str]]
    """By ``BENCHMARK/LANGUAGE``: what tells its prompts, whatever they are called; left out by
    older versions."""
    suites: NotRequired[list[str]]
    """As they were given, names or files, to make the folder again; nothing is decided by them."""
    arms: NotRequired[list[str]]
    """Models in the order of their evaluation; left out by older versions."""


class ModelRecord(TypedDict):
    """``model.json``: which model answered.

    What loaded it adds its own: ``backend``, ``dtype``, ``device``, versions, ``base_url``.
    """

    name: str
    source: str
    """As given: folder, hub id, or a server's name of it."""
    location: str
    """The folder that it was resolved to."""
    digest: str
    """Of weights, configuration and tokenizer."""
    role: Role
    reference: str
    """The name of a merge's language expert among the models; empty where it is not among them."""
    language: NotRequired[str]
    """Of a language expert, or of a merge with one; left out where there is none."""
    chosen: NotRequired[dict[str, Any]]
    """On which questions it was chosen (`ChosenOn`); left out where it was not."""
    made: NotRequired[dict[str, Any]]
    """How a merge's table was made (`CandidateRecord`), by its manifest; left out of others."""
    candidate: NotRequired[dict[str, Any]]
    """How one that lived in memory only was made (`CandidateRecord`), with its aliases."""
    earlier_versions: NotRequired[list[str]]
    """What other versions some of the answers were made with; left out where all are of one."""
    backend: NotRequired[str]
    dtype: NotRequired[str]
