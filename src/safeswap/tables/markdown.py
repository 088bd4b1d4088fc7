"""Tables as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from rich.cells import cell_len

from safeswap.tables.model import Table, note_mark, plain, raised


def as_markdown(table: Table) -> str:
    """A GitHub table. Groups of columns are part of their names, groups of rows a row in bold."""
    numbers = table.cell_notes
    lines = [[in_markdown(column.full_name) for column in table.columns]]
    for group, rows in table.row_groups():
        if group:
            lines.append([f"**{in_markdown(group)}**", *[""] * (len(table.columns) - 1)])
        lines += [[in_markdown(c.text) + note_mark(c, numbers) for c in r.cells] for r in rows]
    widths = [max(3, *map(cell_len, column)) for column in zip(*lines, strict=True)]
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
