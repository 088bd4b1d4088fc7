"""Formulas become MathML as the site is built: no script and no font is needed to read them."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\s*(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])\s*</\1>', re.DOTALL
)


def on_page_content(content: str, **_: Any) -> str:
    """Render what arithmatex has marked."""

    def render(found: re.Match[str]) -> str:
        tag, latex = found[1], html.unescape(found[2]).strip()
        math = convert(latex, display="block" if tag == "div" else "inline")
        return f'<{tag} class="formula">{math}</{tag}>'

    made = _FORMULA.sub(render, content)
    if "arithmatex" in made:
        raise ValueError("a formula was not rendered")
    return made
