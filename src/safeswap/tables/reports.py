"""All tables of a report in one folder, in every format."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from safeswap.errors import OutputError
from safeswap.io.files import save_inside
from safeswap.tables.head import Facts, latex_head, markdown_head
from safeswap.tables.html import as_html
from safeswap.tables.latex import all_as_latex
from safeswap.tables.markdown import as_markdown, markdown_figure
from safeswap.tables.model import Table, names_of
from safeswap.tables.spreadsheet import as_csv

_LIST = "<!-- files of this report: "
_LARGEST = 64 << 20
"""Bytes of a report that is read again: far more than one has."""


def write_reports(
    tables: Sequence[Table],
    folder: Path,
    *,
    name: str = "report",
    title: str = "safeswap: evaluation",
    figures: Mapping[str, str] | None = None,
    facts: Facts = (),
) -> list[Path]:
    """Write ``report.md``, ``.tex`` and ``.html`` into the folder, and ``report-TABLE.csv`` for
    each table: a CSV holds one.

    The Markdown file ends with a comment that lists the CSV files and figures. What an earlier
    report of that name listed and this one does not have is removed: it is of other results.

    Args:
        name: of the files, without their suffix.
        title: of the HTML page and the Markdown file.
        figures: file name of an image in the folder → what it shows; they stand below the tables
            of the Markdown and the HTML file.
        facts: what the report is of, as name and text: above the tables, a comment in LaTeX.

    Returns:
        What was written.

    Raises:
        OutputError: the folder cannot be written, or has a link under the name of a part.
    """
    figures = figures or {}
    texts = {
        f"{name}.md": as_markdown_report(tables, title, facts, figures),
        f"{name}.tex": as_latex_report(tables, title, facts),
        f"{name}.html": as_html(tables, title, figures, facts),
        **{f"{name}-{short}.csv": as_csv(table) for short, table in names_of(tables).items()},
    }
    parts = [*(file for file in texts if file.endswith(".csv")), *figures]
    texts[f"{name}.md"] += f"\n{_LIST}{', '.join(parts)} -->\n"
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder, name, keep=parts)
        for file, text in texts.items():
            written.append(save_inside(folder, file, text.encode()))
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}).") from error
    return written


def _remove_stale(folder: Path, name: str, keep: Sequence[str]) -> None:
    """Remove the parts of an earlier report that the next one does not have.

    Only plain files of our own naming, in this very folder, that the earlier report lists.
    """
    earlier = folder / f"{name}.md"
    if earlier.is_symlink() or not earlier.is_file() or earlier.stat().st_size > _LARGEST:
        return
    text = earlier.read_text(encoding="utf-8", errors="replace").rstrip()
    last = text.rpartition("\n")[2]
    if not (last.startswith(_LIST) and last.endswith(" -->")):
        return
    ours = re.compile(rf"{re.escape(name)}-[\w.-]+\.(csv|png)")
    for file in last.removeprefix(_LIST).removesuffix(" -->").split(", "):
        path = folder / file
        if ours.fullmatch(file) and file not in keep and path.is_file() and not path.is_symlink():
            path.unlink()


def as_markdown_report(
    tables: Sequence[Table],
    title: str,
    facts: Facts = (),
    figures: Mapping[str, str] | None = None,
) -> str:
    """All tables in one Markdown text, below its head and above its figures."""
    head = markdown_head(title, facts)
    shown = [markdown_figure(file, what) for file, what in (figures or {}).items()]
    return "\n".join([*([head] if head else []), *map(as_markdown, tables), *shown])


def as_latex_report(tables: Sequence[Table], title: str, facts: Facts = ()) -> str:
    """All tables in one LaTeX text, below a comment with its head."""
    head = latex_head(title, facts)
    return "\n".join([*([head] if head else []), all_as_latex(tables)])
