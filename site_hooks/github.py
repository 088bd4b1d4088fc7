"""What GitHub takes for a list or a table, Python-Markdown wants a blank line before."""

from __future__ import annotations

import re
from typing import Any

_ITEM = re.compile(r"\s*([-*+]|1\.) ")
_FENCE = re.compile(r"\s*(```|~~~)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put that line in."""
    made: list[str] = []
    fenced = in_list = False
    for line in markdown.splitlines():
        before = made[-1].strip() if made else ""
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            item, row = bool(_ITEM.match(line)), line.startswith("|")
            starts = (item and not in_list) or (row and not before.startswith("|"))
            if starts and before:
                made.append("")
            in_list = item or (in_list and bool(line.strip()))
        made.append(line)
    return "\n".join(made) + "\n"
