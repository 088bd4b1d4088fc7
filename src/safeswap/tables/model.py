"""What a table is made of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from safeswap.display import undirected

MISSING = "n/a"
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is shown.
        value, low, high: the figure behind it, and its interval, unrounded; they go into the CSV.
        note: what must be said about it, printed below the table.
        key: what leads back to the rows it was counted from.
        scale: what the figures are multiplied with in the text: 100 where it is in per cent or
            points. The CSV has them in the text's unit, too.
    """

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str | None = None
    key: str | None = None
    scale: float = 1.0

    @classmethod
    def missing(cls, reason: str, key: str | None = None) -> Cell:
        """A cell without a value: "n/a", and the reason below the table."""
        return cls(MISSING, note=reason, key=key)

    @classmethod
    def figure(
        cls,
        value: float,
        low: float | None = None,
        high: float | None = None,
        *,
        scale: float = 100,
        digits: int = 1,
        sign: bool = False,
        note: str | None = None,
        key: str | None = None,
    ) -> Cell:
        """A figure with its interval, ``12.3 [10.1, 14.9]``; by default a share, in per cent."""

        def shown(number: float) -> str:
            text = f"{scale * number:{'+' if sign else ''}.{digits}f}"
            return re.sub(r"^[+-](0(\.0*)?)$", r"\1", text)  # no sign on a zero

        text = shown(value)
        if low is not None and high is not None:
            text += f" [{shown(low)}, {shown(high)}]"
        return cls(text, value, low, high, note, key, scale)


@dataclass(frozen=True)
class Column:
    """A column: its name, the group that spans it and its neighbours, and how it is aligned."""

    name: str
    group: str = ""
    align: Literal["left", "right"] = "right"

    @property
    def full_name(self) -> str:
        """Both on one line, where nothing can span: ``MultiJail · sw``."""
        return f"{self.group} · {self.name}" if self.group else self.name


@dataclass(frozen=True)
class Row:
    """A row of cells, and the group of rows it belongs to."""

    cells: tuple[Cell, ...]
    group: str = ""

    @classmethod
    def of(cls, *cells: Cell | str, group: str = "") -> Row:
        """A row from cells and plain texts."""
        return cls(tuple(Cell(c) if isinstance(c, str) else c for c in cells), group)


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows.

    Attributes:
        title: what it shows.
        columns: neighbours of the same group are spanned by it.
        rows: neighbours of the same group stand together under its name.
        notes: said below the table, after the cells' own notes.
        name: a word for it, in file names and for ``--table``; by default from the title.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError(f"table {self.title!r} has no columns")
        for number, row in enumerate(self.rows, 1):
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}, row {number}: {len(row.cells)} cells for "
                    f"{len(self.columns)} columns"
                )

    @property
    def short_name(self) -> str:
        """Its name in letters, digits and ``.-_`` that every file system takes."""
        safe = re.sub(r"[^\w.-]+", "-", self.name or self.title).strip("-.")
        return safe.lower()[:_LONGEST_NAME].rstrip("-.") or "table"

    @property
    def cell_notes(self) -> dict[str, int]:
        """Each different note of the cells and its number, in the order they appear."""
        notes = (cell.note for row in self.rows for cell in row.cells if cell.note)
        return {note: number for number, note in enumerate(dict.fromkeys(notes), 1)}

    def row_groups(self) -> Iterator[tuple[str, list[Row]]]:
        """Neighbouring rows of one group, with its name."""
        for name, rows in groupby(self.rows, key=lambda row: row.group):
            yield name, list(rows)

    def column_groups(self) -> Iterator[tuple[str, int, int]]:
        """Groups of neighbouring columns: name, first column, and how many."""
        first = 0
        for name, columns in groupby(self.columns, key=lambda column: column.group):
            count = len(list(columns))
            yield name, first, count
            first += count


def names_of(tables: Sequence[Table]) -> dict[str, Table]:
    """The tables by their short names; one of a name that is taken gets a number."""
    named: dict[str, Table] = {}
    for table in tables:
        name, number = table.short_name, 1
        while name in named:
            number += 1
            name = f"{table.short_name}-{number}"
        named[name] = table
    return named


def plain(text: str) -> str:
    """On one line: control characters and line breaks become spaces, broken surrogates U+FFFD,
    and marks that turn the direction of writing are written out.
    """
    shown = []
    for letter in text:
        kind = unicodedata.category(letter)
        shown.append("�" if kind == "Cs" else " " if kind in ("Cc", "Zl", "Zp") else letter)
    return undirected("".join(shown)).strip()


_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def raised(number: int) -> str:
    """A number as superscript, ¹²."""
    return str(number).translate(_SUPERSCRIPTS)


def note_mark(cell: Cell, numbers: dict[str, int]) -> str:
    """The mark of a cell's note, after its text."""
    return f" {raised(numbers[cell.note])}" if cell.note else ""
