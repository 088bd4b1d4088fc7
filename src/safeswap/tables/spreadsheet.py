"""Tables as CSV, and texts that are safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator

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


def as_csv(table: Table) -> str:
    """For spreadsheets and programs: a header row, a row per row, unrounded figures.

    One table is one rectangle: no title, no notes, no empty lines, and no column name twice.

    After a column come ``value``, ``low``, ``high``, ``note`` and ``key`` of its cells, each only
    where one of them has it. Figures are in the unit of the text beside them: per cent where that
    is. Row groups are a column ``group``. Texts are made safe to open.
    """
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerows(_csv_rows(table))
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
    yield list(_each_once(map(_csv_field, header)))
    for row in table.rows:
        fields = [_held(row.cells[index], field) for index, field in readers]
        shown = [row.group, *fields] if grouped else fields
        yield [_csv_field(field) for field in shown]


def _each_once(names: Iterable[str]) -> Iterator[str]:
    """The names, one that is taken with a number: readers keep one column of a name only."""
    taken: set[str] = set()
    for name in names:
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name} ({number})"
        taken.add(free)
        yield free


def _held(cell: Cell, field: str) -> str | float | None:
    """A field of a cell, figures in the unit of its text."""
    held: str | float | None = getattr(cell, field)
    if isinstance(held, str) or held is None or cell.scale == 1:
        return held
    return float(f"{held * cell.scale:.15g}")  # 100 * 0.07 is 7.000000000000001 in doubles


def _says_more(cell: Cell, field: str) -> bool:
    """Whether a field holds something that the text does not say as well."""
    held = _held(cell, field)
    return held is not None and (field != "value" or _csv_field(held) != cell.text)


def _csv_field(field: str | float | None) -> str:
    if field is None:
        return ""
    if isinstance(field, str):
        return spreadsheet_safe(storable(field))
    return str(int(field)) if float(field).is_integer() else repr(float(field))
