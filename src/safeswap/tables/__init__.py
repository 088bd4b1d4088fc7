"""Tables for people and for papers: one ``Table``, as Markdown, CSV, LaTeX, HTML or in colour.

A table is made of finished cells. A cell carries its text, the figures behind it, a key by which
``safeswap compare --explain`` finds the stored rows, and a note where something must be said: a
cell without a value shows "n/a" and says why. Equal notes share one number and are printed below.
"""

from safeswap.tables.fit import split_columns
from safeswap.tables.head import Facts, latex_head, markdown_head
from safeswap.tables.html import as_html, html_table
from safeswap.tables.latex import as_latex
from safeswap.tables.markdown import as_markdown
from safeswap.tables.model import MISSING, Cell, Column, Row, Table, names_of, plain
from safeswap.tables.records import as_records
from safeswap.tables.reports import as_latex_report, as_markdown_report, write_reports
from safeswap.tables.spreadsheet import as_csv, spreadsheet_safe, storable
from safeswap.tables.terminal import as_rich, as_text, print_tables

__all__ = [
    "MISSING",
    "Cell",
    "Column",
    "Facts",
    "Row",
    "Table",
    "as_csv",
    "as_html",
    "as_latex",
    "as_latex_report",
    "as_markdown",
    "as_markdown_report",
    "as_records",
    "as_rich",
    "as_text",
    "html_table",
    "latex_head",
    "markdown_head",
    "names_of",
    "plain",
    "print_tables",
    "split_columns",
    "spreadsheet_safe",
    "storable",
    "write_reports",
]
