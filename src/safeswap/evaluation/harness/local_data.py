"""Local files in place of lm-eval's datasets: every value as it is written.

``datasets`` guesses types, and reads "None" or "007" in a CSV as nothing and as 7. So files are
read as text here and handed over as Parquet, which holds what it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from safeswap.errors import ConfigError, EvaluationError, nearest
from safeswap.evaluation.harness.final_number import final_number
from safeswap.io.csvfile import read_csv, read_tsv
from safeswap.io.jsonfile import read_json_lines

FORMATS = (".csv", ".jsonl", ".parquet", ".tsv")
_SIB = ("index_id", "category", "text")
_TOPICS = (
    *("science/technology", "travel", "politics", "sports", "health", "entertainment"),
    "geography",
)


def as_parquet(file: Path, scratch: Path) -> Path:
    """A local file with its values as they are written, where ``datasets`` guesses no types.

    CSV has a header; TSV is MGSM's own form, question and number without header or quoting, or
    SIB-200's, which has one.
    """
    readers = {".csv": _csv_rows, ".tsv": _mgsm_rows, ".jsonl": _json_rows}
    kind = file.suffix.lower()
    if kind not in FORMATS:
        raise EvaluationError(
            f"{file}: a file for lm-eval ends in {', '.join(FORMATS)}{nearest(kind, FORMATS)}"
        )
    if kind == ".parquet":
        return file.resolve()
    try:
        rows = list(readers[kind](file))
        if not rows:
            raise EvaluationError(f"{file}: holds no questions.")
        target = scratch / f"{len(list(scratch.iterdir()))}-{file.stem}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), target)
    except ConfigError as error:
        raise EvaluationError(str(error)) from error
    except (OSError, pyarrow.ArrowException, ArithmeticError, TypeError, ValueError) as error:
        # a number past 64 bits is an OverflowError of pyarrow's, half a surrogate a ValueError
        raise EvaluationError(f"{file}: cannot be read ({error}).") from error
    return target


def _csv_rows(file: Path) -> Iterator[dict[str, Any]]:
    return (row for _, row in read_csv(file, error=EvaluationError)[1])


def _json_rows(file: Path) -> Iterator[dict[str, Any]]:
    for number, row in read_json_lines(file, constants=True):
        if not isinstance(row, dict):
            raise EvaluationError(f"{file}: line {number} is no JSON object.")
        yield row


def _mgsm_rows(file: Path) -> Iterator[dict[str, Any]]:
    rows = read_tsv(file, EvaluationError)
    if rows and tuple(rows[0][1]) == _SIB:
        yield from _sib_rows(file, rows[1:])
        return
    for number, row in rows:
        value = final_number(row[1]) if len(row) == 2 else None
        if value is None or not row[0].strip():
            raise EvaluationError(
                f"{file}: line {number} is not QUESTION, tab, NUMBER (MGSM's own form)."
            )
        # A string, since lm-eval compares texts: the target is "18", never "18.0".
        yield {"question": row[0], "answer": None, "answer_number": written(value)}


def _sib_rows(file: Path, rows: Sequence[tuple[int, list[str]]]) -> Iterator[dict[str, Any]]:
    for number, row in rows:
        if len(row) != len(_SIB):
            raise EvaluationError(f"{file}: line {number} is not {', tab, '.join(_SIB)}.")
        if row[1] not in _TOPICS:
            raise EvaluationError(
                f"{file}: line {number} has the topic {row[1]!r}, which SIB-200 has not"
                f"{nearest(row[1], _TOPICS)}"
            )
        yield dict(zip(_SIB, row, strict=True))


def written(value: Decimal) -> str:
    """18.00 as 18, and 1800 never as 1.8E+3."""
    return f"{value.normalize():f}"
