"""Files of labels, as spreadsheets write them, and which column holds what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safeswap.errors import EvaluationError, listed
from safeswap.io.csvfile import need_column, read_csv

HUMAN_COLUMNS = ("human_final", "human", "human_label", "label")
ID_COLUMNS = ("id", "row_key", "key", "prompt_id")
CONTEXT_COLUMNS = ("model", "arm", "benchmark", "mode", "language")
_JUDGE = re.compile(r"judge|judge[_ ].+|.+[_ ]judge|verdict", re.IGNORECASE)
_ANNOTATOR = re.compile(r"(annotation|annotator|rater)[_ ]?\w+", re.IGNORECASE)


def read_sheet(path: Path | str) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """The columns and rows of a CSV as spreadsheets write them.

    UTF-8 with or without a byte-order mark; commas, semicolons or tabs; blank lines are skipped.

    Raises:
        EvaluationError: no file, not UTF-8, no rows, a column twice, or a row of another length.
    """
    path = Path(path)
    try:
        columns, rows = read_csv(path, spreadsheet=True, error=EvaluationError)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror or error}") from error
    if not rows:
        raise EvaluationError(f"{path} holds no rows; it needs a line of column names and labels")
    return tuple(columns), [row for _, row in rows]


def is_blind(path: Path | str) -> bool:
    """Whether a file is a sheet of `safeswap label sample`, whatever its name is now.

    Raises:
        EvaluationError: as `read_sheet`.
    """
    return {"row_key", "arm_blinded"} <= set(read_sheet(path)[0])


@dataclass(frozen=True)
class LabelSheet:
    """A file of labels, and which column holds what.

    Attributes:
        path: where it was read.
        rows: column to label, one per line.
        human: the column of human labels.
        judges: the columns compared with it.
        annotators: columns of single annotators, compared with each other.
        identity: the columns that name a row; empty when there is no column of ids.
    """

    path: Path
    rows: tuple[Mapping[str, str], ...]
    human: str
    judges: tuple[str, ...]
    annotators: tuple[str, ...]
    identity: tuple[str, ...]


def read_labels(
    path: Path | str, human: str | None = None, judges: Sequence[str] = ()
) -> LabelSheet:
    """Human and judge labels from a CSV; columns not named are found by their usual names.

    The human column is the first there is of ``HUMAN_COLUMNS``; a judge is a column ``judge``,
    ``…_judge``, ``judge_…`` or ``verdict``; annotators are ``annotation_…``, ``annotator_…`` or
    ``rater_…``, and are compared with each other when no judge is named.

    Raises:
        EvaluationError: a file that ``read_sheet`` refuses, a column that is missing or cannot be
            guessed, or a row that is there twice.
    """
    path = Path(path)
    columns, rows = read_sheet(path)
    if human is None:
        human = next((name for name in HUMAN_COLUMNS if name in columns), None)
        if human is None:
            raise EvaluationError(
                f"{path}: which column holds the human labels? Name it with --human; "
                f"columns: {', '.join(columns)}"
            )
    need_column(human, columns, path, EvaluationError)
    found = tuple(need_column(name, columns, path, EvaluationError) for name in judges)
    found = found or tuple(name for name in columns if _JUDGE.fullmatch(name) and name != human)
    annotators = tuple(c for c in columns if _ANNOTATOR.fullmatch(c) and c != human)
    annotators = annotators if len(annotators) > 1 and not judges else ()
    if not found and not annotators:
        raise EvaluationError(
            f"{path}: which column holds the judge's labels? Name it with --judge; "
            f"columns: {', '.join(columns)}"
        )
    if human in found:
        raise EvaluationError(f"{path}: {human!r} cannot be both the human labels and the judge's")
    identity = tuple(name for name in ID_COLUMNS if name in columns and name != human)[:1]
    if identity:
        identity = (*(name for name in CONTEXT_COLUMNS if name in columns), *identity)
    _refuse_twins(path, rows, identity)
    return LabelSheet(path, tuple(rows), human, found, annotators, identity)


def _refuse_twins(path: Path, rows: Sequence[Mapping[str, str]], identity: tuple[str, ...]) -> None:
    counts = Counter(tuple(row[name] for name in identity) for row in rows)
    twins = [key for key, count in counts.items() if count > 1]
    if identity and twins:
        shown = listed([" / ".join(key) for key in twins])
        raise EvaluationError(
            f"{path} holds {len(twins)} rows more than once by {' + '.join(identity)}: {shown}; "
            "keep one of each"
        )
