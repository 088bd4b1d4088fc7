"""Tables as HTML: whole pages, or parts of others."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from safeswap.tables.fit import leading_columns, split_columns
from safeswap.tables.model import Cell, Column, Row, Table, plain

_STYLE = """
:root { color-scheme: light dark; --rule: #8888; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 1rem auto; max-width: 90rem; padding: 0 1rem; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: start; font-weight: 600; padding-bottom: .5rem; }
th, td { padding: .3rem .6rem; text-align: start; font-weight: inherit; vertical-align: top; }
td { min-width: 3.5rem; }
td.text { min-width: 10rem; overflow-wrap: anywhere; }
td span { white-space: nowrap; }
thead th { border-bottom: 1px solid var(--rule); font-weight: 600; vertical-align: bottom; }
thead th[scope=colgroup] { text-align: center; }
tbody tr + tr > * { border-top: 1px solid var(--soft); }
tbody th { position: sticky; left: 0; background: Canvas; }
tbody th[scope=row] { min-width: 6rem; max-width: min(20rem, 40vw); overflow-wrap: anywhere; }
tbody th[scope=rowgroup] { font-style: italic; padding-top: .8rem; }
.right { text-align: end; }
.notes, .about { font-size: .875rem; overflow-wrap: anywhere; }
.about { border-block: 1px solid var(--soft); padding: .5rem 0; }
.about div { display: flex; flex-wrap: wrap; column-gap: .8rem; }
.about dt { font-weight: 600; min-width: 9rem; }
.about dd { margin: 0; flex: 1 1 20rem; }
figure { margin: 1.5rem 0; }
img { max-width: min(100%, 44rem); height: auto; background: #fff; }
@media (max-width: 40rem) { body { font-size: 14px; } th, td { padding: .3rem .4rem; } }
@media print { .scroll { overflow: visible; } }
""".strip()


_SHORT = 12
"""Words of no more letters need no room of their own."""
_SIDE_BY_SIDE = 10
"""Columns of figures that a window of 1280 pixels holds."""


def as_html(
    tables: Table | Sequence[Table],
    title: str | None = None,
    figures: Mapping[str, str] | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> str:
    """A page of its own with one table or more: no scripts, nothing fetched, fit for a phone.

    A table with many columns is a table per group of them. One that is wider than the window all
    the same scrolls in a box of its own, with the first column in place.

    ``figures`` are images beside the page, file name → what it shows, and stand below the tables.
    ``facts`` say what the page is of, name and text, and stand above them.
    """
    several = [tables] if isinstance(tables, Table) else list(tables)
    named = in_html(title or (several[0].title if several else "safeswap"))
    shown = [part for table in several for part in _parts(table)]
    parts = [html_table(table, f"table{number}") for number, table in enumerate(shown, 1)]
    heading = [f"<h1>{in_html(title)}</h1>"] if title else []
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{named}</title>",
            f"<style>\n{_STYLE}\n</style>",
            "</head>",
            "<body>",
            *heading,
            *_head(facts),
            *parts,
            *(_html_figure(file, what) for file, what in (figures or {}).items()),
            "</body>",
            "</html>",
            "",
        ]
    )


def html_table(table: Table, name: str = "table1") -> str:
    """The table alone, for a page that has others; ``name`` starts its element ids."""
    numbers = table.cell_notes
    lines = [
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{in_html(name)}-title">',
        f'<table id="{in_html(name)}">',
        f'<caption id="{in_html(name)}-title">{in_html(table.title)}</caption>',
        "<thead>",
        *_html_heads(table),
        "</thead>",
    ]
    for group, rows in table.row_groups():
        lines.append("<tbody>")
        if group:
            span = len(table.columns)
            lines.append(f'<tr><th scope="rowgroup" colspan="{span}">{in_html(group)}</th></tr>')
        lines += [_html_row(table, row, numbers, name) for row in rows]
        lines.append("</tbody>")
    return "\n".join([*lines, "</table>", "</div>", *_html_notes(table, numbers, name)])


def _parts(table: Table) -> list[Table]:
    """The table, or one per group of columns where side by side they are too wide for a page."""
    if len(table.columns) - leading_columns(table) <= _SIDE_BY_SIDE:
        return [table]
    return split_columns(table)


def _head(facts: Sequence[tuple[str, str]]) -> list[str]:
    """A list of terms, as lines of a page; nothing without facts."""
    if not facts:
        return []
    items = [f"<div><dt>{in_html(name)}</dt><dd>{in_html(text)}</dd></div>" for name, text in facts]
    return ['<dl class="about">', *items, "</dl>"]


def _html_figure(file: str, what: str) -> str:
    image = f'<img src="{in_html(quote(file))}" alt="{in_html(what)}">'
    return f"<figure>{image}<figcaption>{in_html(what)}</figcaption></figure>"


def _html_heads(table: Table) -> list[str]:
    lines = []
    if any(column.group for column in table.columns):
        cells = [
            f'<th scope="colgroup" colspan="{count}">{in_html(group)}</th>'
            if group
            else f'<td colspan="{count}"></td>'
            for group, _, count in table.column_groups()
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    names = (f'<th scope="col"{_side(c)}>{in_html(c.name)}</th>' for c in table.columns)
    return [*lines, f"<tr>{''.join(names)}</tr>"]


def _html_row(table: Table, row: Row, numbers: dict[str, int], name: str) -> str:
    cells = []
    for index, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
        tag, scope = ("td", "") if index else ("th", ' scope="row"')
        key = f' data-key="{in_html(cell.key)}"' if cell.key else ""
        mark = ""
        if cell.note:
            number = numbers[cell.note]
            mark = f'<sup><a href="#{in_html(name)}-note{number}">{number}</a></sup>'
        text = f"<bdi>{_figure(cell) if column.align == 'right' else in_html(cell.text)}</bdi>"
        side = _side(column, "text" if index and len(cell.text) > _SHORT else "")
        cells.append(f"<{tag}{scope}{side}{key}>{text}{mark}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


def _figure(cell: Cell) -> str:
    """A figure and its interval, which may stand below it; neither is broken itself."""
    value, bracket, interval = in_html(cell.text).partition(" [")
    if not bracket or cell.low is None:
        return in_html(cell.text)
    return f"{value} <span>[{interval}</span>"


def _html_notes(table: Table, numbers: dict[str, int], name: str) -> list[str]:
    lines = []
    if numbers:
        items = (
            f'<li id="{in_html(name)}-note{n}">{in_html(note)}</li>' for note, n in numbers.items()
        )
        lines.append(f'<ol class="notes">{"".join(items)}</ol>')
    return lines + [f'<p class="notes">{in_html(note)}</p>' for note in table.notes]


def _side(column: Column, words: str = "") -> str:
    kind = "right" if column.align == "right" else words
    return f' class="{kind}"' if kind else ""


def in_html(text: str) -> str:
    """Text on one line in which nothing is markup."""
    return html.escape(plain(text))
