"""Pages of the site that live elsewhere in the repository, and links to them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "recipes.md": "recipes/README.md",
    "small-world-models.md": "src/safeswap/demo/models/README.md",
    "changelog.md": "CHANGELOG.md",
}
_LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add them."""
    for page, source in PAGES.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they work in the repository become links that work in the site."""
    name = page.file.src_uri
    here = (ROOT / PAGES.get(name, f"docs/{name}")).parent
    up = "../" * name.count("/")
    homes = {(ROOT / source).resolve(): page_name for page_name, source in PAGES.items()}

    def to_site(found: re.Match[str]) -> str:
        target, anchor = (here / found[1]).resolve(), found[2] or ""
        if target in homes:
            return f"]({up}{homes[target]}{anchor})"
        if name in PAGES and target.is_relative_to(ROOT / "docs"):
            return f"]({up}{target.relative_to(ROOT / 'docs')}{anchor})"
        return found[0]

    return _LINK.sub(to_site, markdown)
