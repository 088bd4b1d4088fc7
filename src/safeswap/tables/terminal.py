"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from shutil import get_terminal_size

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from safeswap.tables.fit import leading_columns, split_to_fit
from safeswap.tables.model import Cell, Column, Table, note_mark, plain, raised

_SPACE = 2
"""Between columns."""
_WORDS = 16
"""Words are folded to no less than this, or the table is put below itself."""


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print tables; one too wide for the console in parts of a column group each, or of some of a
    group's columns. Words are folded where they must be, figures never.
    """
    for part in fitted(tables, console.width):
        console.print(part)


def fitted(tables: Sequence[Table], width: int) -> Iterator[RenderableType]:
    """What ``print_tables`` prints for a console of a width: titles, tables, notes, empty lines."""
    for table in tables:
        for part in split_to_fit(table, lambda one: _least(one, width) <= width):
            # Beside the table, not in it: words are as wide as the console, not as the table.
            if part.title:
                yield Text(plain(part.title), style="bold")
            yield as_rich(replace(part, title="", notes=()), notes=False, width=width)
            if said := _notes(part):
                yield Text(said, style="dim")
            yield Text("")


def _notes(table: Table) -> str:
    notes = [f"{raised(number)} {plain(note)}" for note, number in table.cell_notes.items()]
    return "\n".join([*notes, *map(plain, table.notes)])


def _bodies(table: Table) -> list[int]:
    """How wide the cells of each column are; groups of rows are named in the first."""
    numbers = table.cell_notes
    found = [
        max((cell_len(_shown_cell(row.cells[n], numbers)) for row in table.rows), default=0)
        for n in range(len(table.columns))
    ]
    groups = max((cell_len(plain(row.group)) for row in table.rows), default=0)
    return [max(found[0], groups), *found[1:]]


def _natural(table: Table, folded: bool) -> list[int]:
    """How wide each column is; ``folded``: with the words of a figure's head below each other."""
    firsts = {first: name for name, first, _ in table.column_groups()}
    found = []
    for index, (column, body) in enumerate(zip(table.columns, _bodies(table), strict=True)):
        name = plain(column.name)
        words = name.split() if folded and column.align == "right" else [name]
        found.append(max(body, *map(cell_len, (plain(firsts.get(index, "")), *words))))
    return found


def _least(table: Table, room: int) -> int:
    """How wide the table is with its words folded: what names a row to no less than a third."""
    leading, natural = leading_columns(table), _natural(table, folded=True)
    least = [
        min(width, max(_WORDS, room // 3 if n < leading else 0)) if _folds(column) else width
        for n, (column, width) in enumerate(zip(table.columns, natural, strict=True))
    ]
    return sum(least) + _SPACE * (len(least) - 1)


def _folds(column: Column) -> bool:
    return column.align == "left"


def _widths(table: Table, room: int) -> list[int] | None:
    """The width of every column where the table is too wide; None where it is not, or must be."""
    between = _SPACE * (len(table.columns) - 1)
    if sum(_natural(table, folded=False)) + between <= room:
        return None
    widths = _natural(table, folded=True)
    while sum(widths) + between > room:
        folding = [n for n, column in enumerate(table.columns) if _folds(column) and widths[n] > 1]
        if not folding:
            return None
        widths[max(folding, key=lambda n: widths[n])] -= 1
    return widths


def as_text(table: Table, width: int | None = None) -> str:
    """What ``print_tables`` prints, as text; by default for the terminal's width, at least 80."""
    text = StringIO()
    wide = width or max(80, get_terminal_size((120, 24)).columns)
    print_tables([table], Console(file=text, width=wide))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def as_rich(table: Table, notes: bool = True, width: int | None = None) -> RichTable:
    """For the terminal, with the notes as its caption; a group is named above its first column.

    Args:
        width: of the terminal: words are folded to it, where there is no room for them.
    """
    numbers, said = table.cell_notes, _notes(table) if notes else ""
    shown = RichTable(
        box=None,
        pad_edge=False,
        title=Text(plain(table.title), style="bold") if table.title else None,
        title_justify="left",
        caption=Text(said) if said else None,
        caption_justify="left",
        header_style="",
    )
    firsts = {first: name for name, first, _ in table.column_groups()}
    grouped = any(firsts.values())
    widths = None if width is None else _widths(table, width)
    for index, column in enumerate(table.columns):
        name = plain(column.name)
        text = f"{plain(firsts.get(index, ''))}\n{name}" if grouped else name
        shown.add_column(
            Text(text, style="bold"),
            justify=column.align,
            overflow="fold",
            width=widths[index] if widths else None,
        )
    for group, rows in table.row_groups():
        if group:
            shown.add_row(Text(plain(group), style="italic"))
        for row in rows:
            shown.add_row(*(Text(_shown_cell(cell, numbers)) for cell in row.cells))
    return shown


def _shown_cell(cell: Cell, numbers: dict[str, int]) -> str:
    return plain(cell.text) + note_mark(cell, numbers)
