"""All tables of a report in one folder, in every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from safeswap.errors import OutputError
from safeswap.tables.html import as_html
from safeswap.tables.latex import as_latex
from safeswap.tables.markdown import as_markdown, markdown_figure
from safeswap.tables.model import Table
from safeswap.tables.spreadsheet import as_csv


def write_reports(
    tables: Sequence[Table],
    folder: Path,
    *,
    name: str = "report",
    title: str = "safeswap: evaluation",
    figures: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write ``report.md``, ``.csv``, ``.tex`` and ``.html`` into the folder; their paths.

    Args:
        name: of the files, without their suffix.
        title: of the HTML page.
        figures: file name of an image in the folder → what it shows; they stand below the tables
            of the Markdown and the HTML file.

    Raises:
        OutputError: the folder cannot be written.
    """
    figures = figures or {}
    shown = [markdown_figure(file, what) for file, what in figures.items()]
    texts = {
        ".md": "\n".join([*map(as_markdown, tables), *shown]),
        ".csv": as_csv(tables),
        ".tex": "\n".join(map(as_latex, tables)),
        ".html": as_html(tables, title, figures),
    }
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, text in texts.items():
            path = folder / f"{name}{suffix}"
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}).") from error
    return written
