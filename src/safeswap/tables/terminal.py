"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from shutil import get_terminal_size

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from safeswap.tables.model import Row, Table, note_mark, plain, raised


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print tables; one too wide for the console in parts of a column group each, or of some of a
    group's columns.
    """
    for table in tables:
        for part in _fitting(table, console):
            # Beside the table, not in it: words are as wide as the console, not as the table.
            console.print(Text(plain(part.title), style="bold"))
            console.print(as_rich(replace(part, title="", notes=()), notes=False))
            if said := _notes(part):
                console.print(Text(said, style="dim"))
            console.print()


def _notes(table: Table) -> str:
    notes = [f"{raised(number)} {plain(note)}" for note, number in table.cell_notes.items()]
    return "\n".join([*notes, *map(plain, table.notes)])


def _fitting(table: Table, console: Console) -> Iterator[Table]:
    """The table, or parts of it that are as wide as the console at most where that can be."""
    if _width(table, console) <= console.width:
        yield table
        return
    parts, leading = split_columns(table), _leading(table)
    divides = len(parts) > 1 or all(column.align == "right" for column in table.columns[leading:])
    for number, part in enumerate(parts):
        first = leading
        while first < len(part.columns):
            last = first + 1
            while last < len(part.columns) and divides:
                if _width(_beside(part, leading, first, last + 1), console) > console.width:
                    break
                last += 1
            if not divides:
                last = len(part.columns)  # words and no groups: one table, whose cells are folded
            chosen = _beside(part, leading, first, last)
            ends = number == len(parts) - 1 and last == len(part.columns)
            yield replace(chosen, notes=table.notes if ends else ())
            first = last


def _leading(table: Table) -> int:
    """How many columns say what a row is: those before the first group, one at least."""
    grouped = (n for n, column in enumerate(table.columns) if column.group)
    return max(1, next(grouped, 1))


def _beside(table: Table, leading: int, first: int, last: int) -> Table:
    return _columns(table, [*range(leading), *range(first, last)])


def _width(table: Table, console: Console) -> int:
    bare = as_rich(replace(table, title=""), notes=False)
    unbound = console.options.update(width=10_000)
    return Measurement.get(console, unbound, bare).maximum


def _columns(table: Table, kept: Sequence[int]) -> Table:
    columns = tuple(table.columns[n] for n in kept)
    rows = tuple(Row(tuple(row.cells[n] for n in kept), row.group) for row in table.rows)
    return replace(table, columns=columns, rows=rows)


def as_text(table: Table, width: int | None = None) -> str:
    """What ``print_tables`` prints, as text; by default for the terminal's width, at least 80."""
    text = StringIO()
    wide = max(80, width or get_terminal_size((120, 24)).columns)
    print_tables([table], Console(file=text, width=wide))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def split_columns(table: Table) -> list[Table]:
    """One table per group of columns, each with the columns before the groups, which name the rows.

    A table without column groups stays whole; the notes below it go with the last part.
    """
    leading = _leading(table)
    groups = [group for group in table.column_groups() if group[1] >= leading]
    if not any(name for name, _, _ in groups):
        return [table]
    parts = []
    for name, first, count in groups:
        part = _beside(table, leading, first, first + count)
        columns = tuple(replace(column, group="") for column in part.columns)
        last = first + count == len(table.columns)
        title = f"{table.title}: {name}" if name and len(groups) > 1 else table.title
        parts.append(replace(part, title=title, columns=columns, notes=part.notes if last else ()))
    return parts


def as_rich(table: Table, notes: bool = True) -> RichTable:
    """For the terminal, with the notes as its caption; a group is named above its first column."""
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
    for index, column in enumerate(table.columns):
        name = plain(column.name)
        text = f"{plain(firsts.get(index, ''))}\n{name}" if grouped else name
        shown.add_column(Text(text, style="bold"), justify=column.align, overflow="fold")
    for group, rows in table.row_groups():
        if group:
            shown.add_row(Text(plain(group), style="italic"))
        for row in rows:
            shown.add_row(*(Text(plain(c.text) + note_mark(c, numbers)) for c in row.cells))
    return shown
