"""CSV that a person or a spreadsheet wrote, read one way: the line of a fault is named."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from safeswap.errors import ConfigError, SafeswapError, nearest
from safeswap.io.regular import read_regular, shortened

LIMIT = 1 << 30
"""Bytes of a file; a single field may be as long."""
_FIELD_LIMIT = Lock()  # csv's limit is one for the whole process


def read_csv(
    path: Path, *, spreadsheet: bool = False, error: type[SafeswapError] = ConfigError
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a CSV with a header, and its rows with the line that each begins in.

    UTF-8 with or without a byte order mark; empty lines are skipped.

    Args:
        spreadsheet: as spreadsheets export: separated by commas, semicolons or tabs, with spaces
            around column names and with rows of empty cells, which are skipped.
        error: what is raised.

    Raises:
        OSError: it cannot be read; the caller knows what to do about it.
        SafeswapError: of the class ``error``; not UTF-8, NUL, a quote left open, a column twice, a
            row of another length than the header. No columns at all are not refused.
    """
    text = _text_of(path, error)
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count) if spreadsheet else ","
    lines = [(n, cells) for n, cells in _lines(text, path, delimiter, True, error) if cells]
    if spreadsheet:
        lines = [(n, cells) for n, cells in lines if any(cell.strip() for cell in cells)]
    if not lines:
        return [], []
    columns = [name.strip() if spreadsheet else name for name in lines[0][1]]
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise error(
            f"{path}: the column {shortened(repr(twice[0]))} is given twice in the header. Rename "
            "one."
        )
    for row, (line, cells) in enumerate(lines[1:], start=1):
        if len(cells) != len(columns):
            than = "more" if len(cells) > len(columns) else "fewer"
            raise error(
                f"{path}: line {line}: row {row} has {than} fields than the header: {len(cells)}, "
                f"not {len(columns)}. A comma or a quote in a field must be quoted."
            )
    return columns, [(line, dict(zip(columns, cells, strict=True))) for line, cells in lines[1:]]


def read_tsv(path: Path, error: type[SafeswapError] = ConfigError) -> list[tuple[int, list[str]]]:
    """The cells of every line of a file without header or quoting, with the line's number.

    Raises:
        OSError: it cannot be read; the caller knows what to do about it.
        SafeswapError: of the class ``error``; not UTF-8, NUL.
    """
    return _lines(_text_of(path, error), path, "\t", False, error)


def read_bare_csv(
    path: Path, error: type[SafeswapError] = ConfigError
) -> list[tuple[int, list[str]]]:
    """The cells of every line of a CSV without a header, with the line that each begins in.

    An empty line has no cells.

    Raises:
        OSError: it cannot be read; the caller knows what to do about it.
        SafeswapError: of the class ``error``; not UTF-8, NUL, a quote left open.
    """
    return _lines(_text_of(path, error), path, ",", True, error)


def need_column(
    name: str, columns: Sequence[str], path: Path | str, error: type[SafeswapError] = ConfigError
) -> str:
    """``name`` if it is a column.

    Raises:
        SafeswapError: of the class ``error``; names the nearest, and the columns there are.
    """
    if name in columns:
        return name
    close = nearest(name, columns)
    all_of_them = "" if close.startswith("; known") else f"; columns: {', '.join(columns)}"
    raise error(f"{path} has no column {name!r}{close}{all_of_them}")


def _text_of(path: Path, error: type[SafeswapError]) -> str:
    try:
        data = read_regular(path, LIMIT)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = _line_at(failure.object, failure.start)
        raise error(
            f'{path}: line {line} is not UTF-8 (byte {failure.start}); save it as "CSV UTF-8".'
        ) from failure
    except ConfigError as failure:
        raise error(str(failure)) from failure
    if "\0" in text:
        raise error(
            f"{path}: line {_line_at(data, data.index(0))} has a NUL byte, which no text has. Is "
            'it UTF-16 or a damaged file? Save it as "CSV UTF-8".'
        )
    return text


def _line_at(data: bytes, position: int) -> int:
    return data[:position].count(b"\n") + 1


def _lines(
    text: str, path: Path, delimiter: str, quoted: bool, error: type[SafeswapError]
) -> list[tuple[int, list[str]]]:
    """Cells with the number of the line that they begin in; an empty line has none."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    found, begins = [], 1
    with _long_fields():
        try:
            for cells in reader:
                found.append((begins, cells))
                begins = reader.line_num + 1
        except csv.Error as failure:
            raise error(
                f"{path}: line {begins}: cannot be read as CSV ({failure}). Is a quote left open?"
            ) from failure
    return found


@contextmanager
def _long_fields() -> Iterator[None]:
    """Fields longer than csv's own limit of 131,072 characters are read."""
    with _FIELD_LIMIT:
        kept = csv.field_size_limit(LIMIT)
        try:
            yield
        finally:
            csv.field_size_limit(kept)
