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


def broken(page: Any, selector: str) -> list[str]:
    """Short words in these elements that begin on one line and end on another."""
    found: list[str] = page.evaluate(
        """selector => [...document.querySelectorAll(selector)].flatMap((element) => {
          const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
          const words = [];
          while (walker.nextNode()) {
            const short = /(?<!\\S)\\S{2,20}(?!\\S)/g;
            for (const { 0: word, index } of walker.currentNode.data.matchAll(short)) {
              const range = document.createRange();
              range.setStart(walker.currentNode, index);
              range.setEnd(walker.currentNode, index + word.length);
              const tops = [...range.getClientRects()].map((box) => Math.round(box.top));
              if (new Set(tops).size > 1) words.push(word);
            }
          }
          return words;
        })""",
        selector,
    )
    return found
