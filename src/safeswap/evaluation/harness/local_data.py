"""Local files in place of lm-eval's datasets: every value as it is written.

`datasets` guesses types, and reads "None" or "007" in a CSV as nothing and as 7. So files are read
as text here and handed over as Parquet, which holds what it is given.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.harness.final_number import final_number

FORMATS = (".csv", ".jsonl", ".parquet", ".tsv")


def as_parquet(file: Path, scratch: Path) -> Path:
    """A local file with its values as they are written, where `datasets` guesses no types.

    CSV has a header; TSV is MGSM's own form, question and number without header or quoting.
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
    except UnicodeEncodeError as error:
        raise EvaluationError(
            f"{file}: holds half a surrogate pair, which is no text. Remove it."
        ) from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{file}: is not UTF-8 (byte {error.start}). Save it so.") from error
    except (OSError, csv.Error, pyarrow.ArrowException) as error:
        raise EvaluationError(f"{file}: cannot be read ({error}).") from error
    return target


def _csv_rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as source:
        for number, row in enumerate(csv.DictReader(source, strict=True), 1):
            if None in row or None in row.values():
                raise EvaluationError(
                    f"{file}: row {number} has more or fewer fields than the header. A comma or a "
                    "quote in a field must be quoted."
                )
            yield row


def _json_rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig") as source:
        for number, line in enumerate(source, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise EvaluationError(f"{file}: line {number} is no JSON object.")
            yield row


def _mgsm_rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as source:
        for number, row in enumerate(csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            value = final_number(row[1]) if len(row) == 2 else None
            if value is None or not row[0].strip():
                raise EvaluationError(
                    f"{file}: line {number} is not QUESTION, tab, NUMBER (MGSM's own form)."
                )
            # A string, since lm-eval compares texts: the target is "18", never "18.0".
            yield {"question": row[0], "answer": None, "answer_number": written(value)}


def written(value: Decimal) -> str:
    """18.00 as 18, and 1800 never as 1.8E+3."""
    return f"{value.normalize():f}"
