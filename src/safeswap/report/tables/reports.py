"""All tables of a report in one folder, in every format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safeswap.errors import OutputError
from safeswap.report.tables.html import as_html
from safeswap.report.tables.latex import as_latex
from safeswap.report.tables.markdown import as_markdown
from safeswap.report.tables.model import Table
from safeswap.report.tables.spreadsheet import as_csv


def write_reports(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write ``report.md``, ``.csv``, ``.tex`` and ``.html`` into the folder; their paths.

    Raises:
        OutputError: the folder cannot be written.
    """
    texts = {
        ".md": "\n".join(map(as_markdown, tables)),
        ".csv": as_csv(tables),
        ".tex": "\n".join(map(as_latex, tables)),
        ".html": as_html(tables, "safeswap: evaluation"),
    }
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, text in texts.items():
            path = folder / f"report{suffix}"
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}).") from error
    return written
