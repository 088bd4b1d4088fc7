"""A page as one file: ours are the template, the style and the script; all else is text in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from safeswap.errors import SafeswapError
from safeswap.tables import plain

_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_IMPORT = re.compile(r'^import \{[^}]*\} from "\.{1,2}/[\w./]+";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) )", re.MULTILINE)


def render(package: str, template: str, *, style: str, script: str, **values: Any) -> str:
    """A page's text: a template of a package, filled.

    Args:
        style, script: the only ones that the page's policy lets be; the template has them as
            ``style`` and ``script``, and their digests as ``style_digest``, ``script_digest``.
        values: for the template; texts are escaped, and say nothing that turns their direction.

    Raises:
        SafeswapError: jinja2 is not installed.
    """
    made = environment().from_string(part(package, template))
    from markupsafe import Markup

    text: str = made.render(
        style=Markup(style),
        script=Markup(script),
        style_digest=digest_of(style),
        script_digest=digest_of(script),
        **values,
    )
    return text


def environment() -> Any:
    """What reads templates: ours alone, and nothing of a run is ever taken for one.

    Raises:
        SafeswapError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise SafeswapError(
            "the page is made with jinja2: install safeswap[report], then run the same command "
            "again."
        ) from None
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )


def _harmless(value: Any) -> Any:
    """A text without control characters and marks that turn the direction of writing; markup and
    numbers as they are. The template escapes what is no markup after it.
    """
    return value if hasattr(value, "__html__") or not isinstance(value, str) else plain(value)


def as_data(value: Any) -> Any:
    """Plain values as JSON inside an element: no letter of it is markup or ends a line."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.translate(_ESCAPES))


def part(package: str, name: str) -> str:
    """A file that lies in a package: a template, a style, a script."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def joined(parts: Sequence[tuple[str, str]]) -> str:
    """Modules of JavaScript as one script, in an order in which each finds what it needs.

    No two of them have a name in common: without
    ``import`` and ``export`` they are one script (a test runs it).

    Args:
        parts: package and file of each.
    """
    texts = (_EXPORT.sub("", _IMPORT.sub("", part(*one))) for one in parts)
    return '"use strict";\n' + "\n".join(texts)


def digest_of(text: str) -> str:
    """What a Content-Security-Policy calls a text that may run or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
