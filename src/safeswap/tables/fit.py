"""Tables in parts that are as wide as a page or a screen, so that no column is lost or cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from safeswap.tables.model import Cell, Row, Table

Fits = Callable[[Table], bool]
"""Whether a table has room where it is to stand."""

CONTINUED = ", continued"


def leading_columns(table: Table) -> int:
    """How many columns say what a row is: the first ones that hold words and are in no group.

    One at least.
    """
    others = (n for n, one in enumerate(table.columns) if one.group or one.align == "right")
    return max(1, next(others, 1))


def _groups(table: Table, leading: int) -> list[tuple[str, int, int]]:
    """Groups of the columns after the first ones: name, first column, and how many."""
    rest = replace(table, columns=table.columns[leading:], rows=())
    return [(name, leading + first, count) for name, first, count in rest.column_groups()]


def some_columns(table: Table, kept: Sequence[int]) -> Table:
    """The table with these columns only."""
    columns = tuple(table.columns[n] for n in kept)
    rows = tuple(Row(tuple(row.cells[n] for n in kept), row.group) for row in table.rows)
    return replace(table, columns=columns, rows=rows)


def split_columns(table: Table) -> list[Table]:
    """One table per group of columns, each with the columns that name the rows.

    A table without column groups stays whole; the notes below it go with the last part.
    """
    leading = leading_columns(table)
    groups = _groups(table, leading) if leading < len(table.columns) else []
    if not any(name for name, _, _ in groups):
        return [table]
    parts = []
    for name, first, count in groups:
        part = some_columns(table, [*range(leading), *range(first, first + count)])
        columns = tuple(replace(column, group="") for column in part.columns)
        last = first + count == len(table.columns)
        title = f"{table.title}: {name}" if name and len(groups) > 1 else table.title
        parts.append(replace(part, title=title, columns=columns, notes=part.notes if last else ()))
    return parts


def split_to_fit(table: Table, fits: Fits) -> list[Table]:
    """The table if it fits, or parts that do where that can be.

    A part has the columns that say what a row is, and some groups of columns or some of a group, a
    column at least: every column is in one of the parts. Notes of cells go with their cells, those
    of the table with the last part. A part whose title was there before says that it is continued.
    """
    if fits(table):
        return [table]
    parts = [piece for part in _blocks(table, fits) for piece in _pieces(part, fits)]
    titled: list[Table] = []
    for number, part in enumerate(parts or [table]):
        again = number > 0 and parts[number - 1].title == part.title
        title = f"{part.title}{CONTINUED}" if again else part.title
        notes = table.notes if number == len(parts) - 1 else ()
        titled.append(replace(part, title=title, notes=notes))
    return titled if parts else [table]


def _blocks(table: Table, fits: Fits) -> Iterator[Table]:
    """As many groups of columns as fit side by side; one that does not fit alone is by itself."""
    leading, parts = leading_columns(table), split_columns(table)
    if len(parts) == 1:  # or no group has a name
        yield from parts
        return
    groups = _groups(table, leading)
    first = 0
    while first < len(groups):
        last, block = first + 1, parts[first]
        while last < len(groups):
            wider = _beside(table, leading, groups[first][1], groups[last][1] + groups[last][2])
            if not fits(wider):
                break
            last, block = last + 1, wider
        yield block
        first = last


def _pieces(part: Table, fits: Fits) -> Iterator[Table]:
    if fits(part):
        yield part
        return
    leading = leading_columns(part)
    first, end = leading, len(part.columns)
    while first < end:
        last = first + 1
        while last < end and fits(_beside(part, leading, first, last + 1)):
            last += 1
        yield _beside(part, leading, first, last)
        first = last


def _beside(table: Table, leading: int, first: int, last: int) -> Table:
    return some_columns(table, [*range(leading), *range(first, last)])


def shorten_words(table: Table, longest: int, columns: int | None = None) -> Table:
    """The table with words of more letters than ``longest`` cut in the middle, and whole in a note.

    Args:
        columns: only in so many of the first ones; by default in all that are aligned left.
    """
    end = len(table.columns) if columns is None else columns

    def shown(cell: Cell, index: int) -> Cell:
        if index >= end or table.columns[index].align != "left" or len(cell.text) <= longest:
            return cell
        head, tail = longest - longest // 2 - 1, longest // 2
        note = cell.text if cell.note is None else f"{cell.text}: {cell.note}"
        return replace(cell, text=f"{cell.text[:head]}…{cell.text[-tail:]}", note=note)

    rows = (
        Row(tuple(shown(cell, n) for n, cell in enumerate(row.cells)), row.group)
        for row in table.rows
    )
    return replace(table, rows=tuple(rows))
