"""Tables as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable

from safeswap.tables.model import Cell, Table, plain

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


def as_latex(table: Table) -> str:
    r"""A ``table`` with booktabs rules (``\usepackage{booktabs}``), groups spanned by multicolumn.

    Figures and Latin text compile with any engine, other scripts with XeLaTeX or LuaLaTeX.
    """
    numbers, width = table.cell_notes, len(table.columns)
    aligned = "".join(column.align[0] for column in table.columns)
    body: list[str] = []
    for index, (group, rows) in enumerate(table.row_groups()):
        if index:
            body.append(r"\midrule")
        if group:
            body.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{_latex(group)}}}}} \\")
        body += [_latex_row(_latex_cell(c, numbers) for c in row.cells) for row in rows]
    notes = [rf"\textsuperscript{{{n}}}~{_latex(note)}" for note, n in numbers.items()]
    notes += [_latex(note) for note in table.notes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\begin{{tabular}}{{{aligned}}}",
            r"\toprule",
            *_latex_groups(table),
            _latex_row(_latex(column.name) for column in table.columns),
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


def _latex_cell(cell: Cell, numbers: dict[str, int]) -> str:
    mark = rf"\textsuperscript{{{numbers[cell.note]}}}" if cell.note else ""
    return _latex(cell.text) + mark


def _latex(text: str) -> str:
    escaped = "".join(_LATEX.get(letter, letter) for letter in plain(text).replace("--", "-\0-"))
    return escaped.replace("\0", "{}")
