"""Tables as CSV, and texts that are safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence

from safeswap.tables.model import Cell, Table

_FORMULA = "=+-@＝＋－＠"
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def spreadsheet_safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula: a ' goes before =, +, -, @ and before a '.

    Numbers stay as they are. Without a leading ' it is the text again.
    """
    start = text.lstrip()[:1]
    risky = (start and start in _FORMULA) or text[:1] in ("'", "\t", "\r")
    return f"'{text}" if risky and not _NUMBER.fullmatch(text) else text


def storable(text: str) -> str:
    """Text that a UTF-8 file of a spreadsheet can hold: half surrogates and NUL, which broken
    models do produce, become U+FFFD.
    """
    return "".join("�" if _unstorable(letter) else letter for letter in text)


def _unstorable(letter: str) -> bool:
    return letter == "\0" or "\ud800" <= letter <= "\udfff"


def as_csv(tables: Table | Sequence[Table]) -> str:
    """For spreadsheets and programs: a row per row, a header row, unrounded figures.

    Several tables stand below each other, each under a line with its title, an empty line between.

    After a column come ``value``, ``low``, ``high``, ``note`` and ``key`` of its cells, each only
    where one of them has it. Row groups are a column ``group``. Texts are made safe to open.
    """
    if isinstance(tables, Table):
        return _lines(_csv_rows(tables))
    return "\r\n".join(_lines([[_csv_field(t.title)], *_csv_rows(t)]) for t in tables)


def _lines(rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue()


def _csv_rows(table: Table) -> Iterator[list[str]]:
    """The header, then the rows."""
    grouped = any(row.group for row in table.rows)
    header = ["group"] if grouped else []
    readers: list[tuple[int, str]] = []
    for index, column in enumerate(table.columns):
        cells = [row.cells[index] for row in table.rows]
        for field in ("text", "value", "low", "high", "note", "key"):
            if field == "text" or any(_says_more(cell, field) for cell in cells):
                readers.append((index, field))
                header.append(column.full_name + ("" if field == "text" else f" {field}"))
    yield [_csv_field(name) for name in header]
    for row in table.rows:
        fields = [getattr(row.cells[index], field) for index, field in readers]
        shown = [row.group, *fields] if grouped else fields
        yield [_csv_field(field) for field in shown]


def _says_more(cell: Cell, field: str) -> bool:
    """Whether a field holds something that the text does not say as well."""
    held = getattr(cell, field)
    return held is not None and (field != "value" or _csv_field(held) != cell.text)


def _csv_field(field: str | float | None) -> str:
    if field is None:
        return ""
    if isinstance(field, str):
        return spreadsheet_safe(storable(field))
    return str(int(field)) if float(field).is_integer() else repr(float(field))
