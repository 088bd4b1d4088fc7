"""Tables as HTML: whole pages, or parts of others."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from safeswap.tables.model import Column, Row, Table, plain

_STYLE = """
:root { color-scheme: light dark; --rule: #8888; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 1rem auto; max-width: 75rem; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: start; font-weight: 600; padding-bottom: .5rem; }
th, td { padding: .3rem .7rem; text-align: start; font-weight: inherit; white-space: nowrap; }
thead th { border-bottom: 1px solid var(--rule); font-weight: 600; }
thead th[scope=colgroup] { text-align: center; }
tbody tr + tr > * { border-top: 1px solid var(--soft); }
tbody th { position: sticky; left: 0; background: Canvas; }
tbody th[scope=rowgroup] { font-style: italic; padding-top: .8rem; }
.right { text-align: end; }
.notes { font-size: .875rem; }
figure { margin: 1.5rem 0; }
img { max-width: min(100%, 44rem); height: auto; background: #fff; }
@media (max-width: 40rem) { body { font-size: 14px; } th, td { padding: .3rem .4rem; } }
""".strip()


def as_html(
    tables: Table | Sequence[Table],
    title: str | None = None,
    figures: Mapping[str, str] | None = None,
) -> str:
    """A page of its own with one table or more: no scripts, nothing fetched, fit for a phone.

    ``figures`` are images beside the page, file name → what it shows, and stand below the tables.
    """
    several = [tables] if isinstance(tables, Table) else list(tables)
    named = _html(title or (several[0].title if several else "safeswap"))
    parts = [html_table(table, f"table{number}") for number, table in enumerate(several, 1)]
    heading = [f"<h1>{_html(title)}</h1>"] if title else []
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
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{_html(name)}-title">',
        f'<table id="{_html(name)}">',
        f'<caption id="{_html(name)}-title">{_html(table.title)}</caption>',
        "<thead>",
        *_html_heads(table),
        "</thead>",
    ]
    for group, rows in table.row_groups():
        lines.append("<tbody>")
        if group:
            span = len(table.columns)
            lines.append(f'<tr><th scope="rowgroup" colspan="{span}">{_html(group)}</th></tr>')
        lines += [_html_row(table, row, numbers, name) for row in rows]
        lines.append("</tbody>")
    return "\n".join([*lines, "</table>", "</div>", *_html_notes(table, numbers, name)])


def _html_figure(file: str, what: str) -> str:
    image = f'<img src="{_html(quote(file))}" alt="{_html(what)}">'
    return f"<figure>{image}<figcaption>{_html(what)}</figcaption></figure>"


def _html_heads(table: Table) -> list[str]:
    lines = []
    if any(column.group for column in table.columns):
        cells = [
            f'<th scope="colgroup" colspan="{count}">{_html(group)}</th>'
            if group
            else f'<td colspan="{count}"></td>'
            for group, _, count in table.column_groups()
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    names = (f'<th scope="col"{_side(c)}>{_html(c.name)}</th>' for c in table.columns)
    return [*lines, f"<tr>{''.join(names)}</tr>"]


def _html_row(table: Table, row: Row, numbers: dict[str, int], name: str) -> str:
    cells = []
    for index, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
        tag, scope = ("td", "") if index else ("th", ' scope="row"')
        key = f' data-key="{_html(cell.key)}"' if cell.key else ""
        mark = ""
        if cell.note:
            number = numbers[cell.note]
            mark = f'<sup><a href="#{_html(name)}-note{number}">{number}</a></sup>'
        text = f"<bdi>{_html(cell.text)}</bdi>"
        cells.append(f"<{tag}{scope}{_side(column)}{key}>{text}{mark}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


def _html_notes(table: Table, numbers: dict[str, int], name: str) -> list[str]:
    lines = []
    if numbers:
        items = (
            f'<li id="{_html(name)}-note{n}">{_html(note)}</li>' for note, n in numbers.items()
        )
        lines.append(f'<ol class="notes">{"".join(items)}</ol>')
    return lines + [f'<p class="notes">{_html(note)}</p>' for note in table.notes]


def _side(column: Column) -> str:
    return ' class="right"' if column.align == "right" else ""


def _html(text: str) -> str:
    return html.escape(plain(text))
