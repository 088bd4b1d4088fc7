"""Where Chromium and what npm fetched lie, and what tests of pages ask of a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get("SAFESWAP_CHROMIUM") or shutil.which("chromium") or ""
MODULES = Path(os.environ.get("SAFESWAP_NODE_MODULES", ""))
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
OpenPage = Callable[..., Any]
"""``open_page(path or address, width=1280, height=900, **options of a Playwright context)``."""


def sideways(page: Any) -> int:
    """How many pixels of the page lie beyond the right edge of its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))
