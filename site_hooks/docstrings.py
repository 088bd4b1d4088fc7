"""Docstrings as Markdown: doctests are code, Sphinx's roles are names, joint entries are split."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n(?!\n|[A-Z]\w+:$).*)*", re.MULTILINE)
_JOINT = re.compile(r"^    (\w+(?:, \w+)+): (.*(?:\n {8}.*)*)", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?([^`]+)`")


def as_markdown(text: str) -> str:
    """Fence the examples; a doctest ends at an empty line."""
    fenced = _DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
    single = _JOINT.sub(_split, fenced)
    return _ROLE.sub(r"`\1`", single)


def _split(found: re.Match[str]) -> str:
    """``a, b: what they are`` as an entry each."""
    return "\n".join(f"    {name}: {found[2]}" for name in found[1].split(", "))


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
