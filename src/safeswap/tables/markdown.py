"""Tables as GitHub Markdown, no wider than a page of fixed letters where that can be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from rich.cells import cell_len

from safeswap.tables.fit import leading_columns, shorten_words, split_to_fit
from safeswap.tables.model import Table, note_mark, plain, raised

WIDTH = 110
"""Letters in a line of a table."""
_NAME, _WORDS = 36, 60
"""Letters of what names a row, and of other words, before they are cut and said in a note."""


def as_markdown(table: Table, width: int | None = WIDTH) -> str:
    """A GitHub table, or several where it is wider than ``width``: no column is lost.

    Groups of columns are part of their names, or of the title of a part; groups of rows are a row
    in bold. Very long words are cut in a table that is too wide, and stand whole in a note.
    """
    if width is None:
        return _one(table)

    def fits(one: Table) -> bool:
        return _width(one) <= width

    if not fits(table):
        table = shorten_words(shorten_words(table, _NAME, leading_columns(table)), _WORDS)
    return "\n".join(map(_one, split_to_fit(table, fits)))


def _lines(table: Table) -> list[list[str]]:
    numbers = table.cell_notes
    lines = [[in_markdown(column.full_name) for column in table.columns]]
    for group, rows in table.row_groups():
        if group:
            lines.append([f"**{in_markdown(group)}**", *[""] * (len(table.columns) - 1)])
        lines += [[in_markdown(c.text) + note_mark(c, numbers) for c in r.cells] for r in rows]
    return lines


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(3, *map(cell_len, column)) for column in zip(*lines, strict=True)]


def _width(table: Table) -> int:
    widths = _widths(_lines(table))
    return sum(widths) + 3 * len(widths) + 1


def _one(table: Table) -> str:
    numbers, lines = table.cell_notes, _lines(table)
    widths = _widths(lines)
    rights = [column.align == "right" for column in table.columns]
    rule = [("-" * (w - 1) + ":") if r else "-" * w for w, r in zip(widths, rights, strict=True)]
    body = [_padded(line, widths, rights) for line in lines]
    parts = [f"**{in_markdown(table.title)}**", "", body[0], f"| {' | '.join(rule)} |", *body[1:]]
    notes = [f"{raised(number)} {in_markdown(note)}" for note, number in numbers.items()]
    notes += [_paragraph(note) for note in table.notes]
    return "\n".join([*parts, *(f"\n{note}" for note in notes)]) + "\n"


def markdown_figure(file: str, what: str) -> str:
    """An image beside the Markdown file, and what it shows."""
    return f"![{in_markdown(what)}]({quote(file)})\n"


def _padded(cells: Sequence[str], widths: Sequence[int], rights: Sequence[bool]) -> str:
    padded = []
    for cell, width, right in zip(cells, widths, rights, strict=True):
        space = " " * (width - cell_len(cell))
        padded.append(space + cell if right else cell + space)
    return f"| {' | '.join(padded)} |"


def in_markdown(text: str) -> str:
    """Text on one line in which nothing is markup or HTML."""
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|~$\[\]])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)  # within a word it is only itself


def _paragraph(text: str) -> str:
    """The same at the start of a line, where it is no heading, list or rule either."""
    return re.sub(r"^\s*(?:(#+\s|[+=-])|(\d+)([.)]\s))", r"\2\\\1\3", in_markdown(text))


def as_code(text: str) -> str:
    """Text on one line as code, also where it has backticks of its own."""
    shown = plain(text)
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {shown} {fence}" if longest else f"`{shown}`"
