"""Tables as LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from safeswap.tables.fit import CONTINUED, leading_columns, split_to_fit
from safeswap.tables.model import Cell, Row, Table, plain

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "[": "{[}",  # after a line break it would be taken for its argument
    "]": "{]}",
    "*": "{*}",  # likewise
    "-": "-",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "κ": r"\ensuremath{\kappa}",
    "α": r"\ensuremath{\alpha}",
    "τ": r"\ensuremath{\tau}",
    "γ": r"\ensuremath{\gamma}",
    "λ": r"\ensuremath{\lambda}",
    "↓": r"\ensuremath{\downarrow}",
    "↑": r"\ensuremath{\uparrow}",
    "“": "``",
    "”": "''",
    "’": "'",
    "·": r"\textperiodcentered{}",
    "–": "--",
    "…": r"\ldots{}",
}


TEXT_WIDTH = 345.0
r"""Points across: ``\textwidth`` of LaTeX's article on A4 in one column, its narrowest."""
_LINES = 50
"""Lines of a table and its notes on a page."""
_LEAST_ROWS = 8
_FLOATS = 10
"""Tables in a row; LaTeX ends at the 19th or, if it is new, the 53rd that it could not place."""
_NAME, _WORDS, _HEAD, _GROUP = 110.0, 130.0, 90.0, 250.0
"""Points of what names a row, of other words, of a column's head and of a group's name, before
they are broken."""
_SEPARATION = 4.0
"""Points on both sides of a column."""
_EM = 8.5
"""Points of an em in LaTeX's footnotesize of Computer Modern."""
_UNBROKEN = 24
"""Letters in a row before a break is allowed among them."""


def as_latex(table: Table) -> str:
    r"""A ``table`` with booktabs rules (``\usepackage{booktabs}``), groups spanned by multicolumn.

    One that is wider than ``TEXT_WIDTH`` or higher than a page is several, each with the columns
    that name the rows; no column and no row is lost. Widths are those of Computer Modern in
    footnotesize. Figures and Latin text compile with any engine, other scripts with XeLaTeX or
    LuaLaTeX.
    """
    return "\n".join(_made(table))


def all_as_latex(tables: Sequence[Table]) -> str:
    """One table after the other; LaTeX holds few of them back, so it is told to place them."""
    floats = [made for table in tables for made in _made(table)]
    return "\n".join(
        made + ("\\clearpage\n" if number % _FLOATS == 0 else "")
        for number, made in enumerate(floats, 1)
    )


def _made(table: Table) -> Iterator[str]:
    for part in split_to_fit(table, lambda one: _width(one) <= TEXT_WIDTH):
        yield from map(_one, _pages(part))


def _pages(table: Table) -> Iterator[Table]:
    """The table in parts that are no higher than a page; the notes below it with the last."""
    notes = sum(1 + len(note) // 85 for note in (*table.cell_notes, *table.notes))
    room = max(_LEAST_ROWS, _LINES - notes)
    page: list[Row] = []
    used, group, pages = 0, "", []
    for row in table.rows:
        height = _height(table, row) + (2 if row.group != group else 0)
        if page and used + height > room:
            pages.append(page)
            page, used = [], 0
        page.append(row)
        used, group = used + height, row.group
    pages.append(page)
    for number, rows in enumerate(pages):
        title = f"{table.title}{CONTINUED}" if number else table.title
        notes_below = table.notes if number == len(pages) - 1 else ()
        yield replace(table, title=title, rows=tuple(rows), notes=notes_below)


def _height(table: Table, row: Row) -> int:
    """Lines of a row: words that are broken take several."""
    limits = _limits(table)
    return max(
        1 if limit is None else math.ceil(1.15 * _points(cell.text) / limit)
        for cell, limit in zip(row.cells, limits, strict=True)
    )


def _limits(table: Table) -> list[float | None]:
    """Per column, the points that its words may take; None for figures, which are never broken."""
    leading = leading_columns(table)
    return [
        None if column.align == "right" else _NAME if n < leading else _WORDS
        for n, column in enumerate(table.columns)
    ]


def _width(table: Table) -> float:
    """Points across, the heads of groups included."""
    numbers, widths = table.cell_notes, []
    for index, (column, limit) in enumerate(zip(table.columns, _limits(table), strict=True)):
        body = max((_points(_shown(row.cells[index], numbers)) for row in table.rows), default=0)
        head = min(_points(column.name), limit or _HEAD)
        widths.append(max(head, body if limit is None else min(body, limit)))
    width = 0.0
    for name, first, count in table.column_groups():
        own = sum(widths[first : first + count]) + 2 * _SEPARATION * (count - 1)
        width += max(own, _points(name)) + 2 * _SEPARATION
    named = (min(_points(row.group), _GROUP) for row in table.rows)
    return max(width, *named, 0.0)


def _shown(cell: Cell, numbers: dict[str, int]) -> str:
    return cell.text + (str(numbers[cell.note]) if cell.note else "")


def _points(text: str) -> float:
    """Points across in footnotesize, rather too many than too few."""
    return _EM * sum(map(_ems, plain(text)))


def _ems(letter: str) -> float:
    if letter in "il.,:;'|![]·":
        return 0.32
    if letter in "()- jftrs":
        return 0.42
    if letter.isdigit() or letter in "+/*":
        return 0.54 if letter != "+" else 0.83
    if letter in "mwMW%−–±×≤≥≈→↑↓_…@" or (letter.isupper() and letter.isascii()):
        return 1.05 if letter in "mMW…" else 0.9
    return 0.6 if ord(letter) < 0x250 else 1.05


def _one(table: Table) -> str:
    numbers, width = table.cell_notes, len(table.columns)
    aligned = "".join(column.align[0] for column in table.columns)
    limits = _limits(table)
    body: list[str] = []
    for index, (group, rows) in enumerate(table.row_groups()):
        if index:
            body.append(r"\midrule")
        if group:
            named = _latex_cell(Cell(group), {}, _GROUP)
            body.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{named}}}}} \\")
        body += [
            _latex_row(_latex_cell(c, numbers, m) for c, m in zip(r.cells, limits, strict=True))
            for r in rows
        ]
    notes = [rf"\textsuperscript{{{n}}}~{_breakable(note)}" for note, n in numbers.items()]
    notes += [_breakable(note) for note in table.notes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\footnotesize",
            rf"\setlength{{\tabcolsep}}{{{_SEPARATION:g}pt}}",
            rf"\caption{{{_breakable(table.title)}}}",
            rf"\begin{{tabular}}{{{aligned}}}",
            r"\toprule",
            *_latex_groups(table),
            _latex_row(
                _latex_cell(Cell(column.name), {}, limit or _HEAD)
                for column, limit in zip(table.columns, limits, strict=True)
            ),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip{{\footnotesize {note}\par}}" for note in notes),
            r"\end{table}",
            "",
        ]
    )


def _latex_groups(table: Table) -> list[str]:
    if not any(column.group for column in table.columns):
        return []
    spans, rules = [], []
    for name, first, count in table.column_groups():
        spans.append(
            rf"\multicolumn{{{count}}}{{c}}{{{_latex(name)}}}" if name else " & " * (count - 1)
        )
        if name:
            rules.append(rf"\cmidrule(lr){{{first + 1}-{first + count}}}")
    return [_latex_row(spans), " ".join(rules)]


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell, numbers: dict[str, int], limit: float | None) -> str:
    mark = rf"\textsuperscript{{{numbers[cell.note]}}}" if cell.note else ""
    if limit is None or _points(_shown(cell, numbers)) <= limit:
        return _latex(cell.text) + mark
    return _box(_breakable(cell.text, _UNBROKEN // 2) + mark, limit)


def _box(latex: str, points: float) -> str:
    return rf"\parbox[t]{{{points:g}pt}}{{\raggedright {latex}\strut}}"


def _breakable(text: str, longest: int = _UNBROKEN) -> str:
    """The text with breaks allowed in what has no spaces, such as paths and models' names."""
    words = []
    for word in plain(text).split(" "):
        pieces = re.findall(r"[^/_-]{0,11}[/_-]|[^/_-]{1,12}", word)
        whole = len(word) <= longest
        words.append(_latex(word) if whole else r"\allowbreak{}".join(map(_latex, pieces)))
    return " ".join(words)


def _latex(text: str) -> str:
    escaped = "".join(_LATEX.get(letter, letter) for letter in plain(text).replace("--", "-\0-"))
    return escaped.replace("\0", "{}")
