"""The head of a report: what it is of, when and with what it was made."""

from __future__ import annotations

from collections.abc import Sequence

from safeswap.tables.markdown import in_markdown
from safeswap.tables.model import plain

Facts = Sequence[tuple[str, str]]
"""What is said, line by line: its name, and the text."""


def markdown_head(title: str, facts: Facts) -> str:
    """A heading, and a list below it; nothing without facts."""
    if not facts:
        return ""
    lines = [f"- **{in_markdown(name)}**: {in_markdown(text)}" for name, text in facts]
    return "\n".join([f"# {in_markdown(title)}", "", *lines]) + "\n"


def latex_head(title: str, facts: Facts) -> str:
    """Comments that a reader of the source sees; nothing without facts."""
    if not facts:
        return ""
    lines = [f"% {plain(name)}: {plain(text)}" for name, text in facts]
    return "\n".join([f"% {plain(title)}", *lines]) + "\n"
