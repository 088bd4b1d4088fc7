"""A page that would fetch something of another host fails the build."""

from __future__ import annotations

import re
from typing import Any

_FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc\s*=\s*[\"']?(?:https?:)?//[^>]*>"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preconnect|preload|icon))"
    r"[^>]*\bhref\s*=\s*[\"']?(?:https?:)?//[^>]*>",
    re.IGNORECASE,
)


def fetched(output: str) -> str:
    """The first tag of a page that fetches from another host, or nothing; links do not fetch."""
    found = _FETCHED.search(output)
    return found[0] if found else ""


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Look at every page as it is written."""
    from mkdocs.exceptions import PluginError

    if tag := fetched(output):
        raise PluginError(f"{page.file.src_uri}: would be fetched from elsewhere: {tag}")
    return output
