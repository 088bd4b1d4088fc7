"""The rows of a plan's file as safeswap writes them, read and written without a YAML library.

A plan by expert has thousands of rows, and what reads any YAML takes a millisecond for each. Only
rows that are just as they are written here are read here; a file with any other is left to YAML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import yaml

_NUMBER = r"-?(?:0|[1-9]\d*)\.\d+(?:e[-+]\d+)?"
_PAIR = rf"[A-Za-z][A-Za-z0-9_-]*: {_NUMBER}"
_TABLE = rf"\{{({_PAIR}(?:, {_PAIR})*)\}}"
_ROW = re.compile(
    rf"  ([a-z0-9_.]+): +\{{weights: {_TABLE}(?:, shares: {_TABLE}, difference: ({_NUMBER}))?\}}"
)
_WORDS = {"true", "false", "null"}
"""Names that YAML takes for something else than text."""
_UNITS = "\nunits:\n"


def row_line(row: Mapping[str, Any]) -> str:
    """A row in one line, as YAML's library would write it."""
    plain = all(_is_numbers(value) for value in row.values())
    if not plain:
        text: str = yaml.safe_dump(
            dict(row), default_flow_style=True, sort_keys=False, width=10_000
        )
        return text.strip()
    return _flow(row)


def _is_numbers(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(type(inner) is float for inner in value.values())
    return type(value) is float


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{key_text(key)}: {_flow(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    text = repr(value).lower()
    return text.replace("e", ".0e", 1) if "." not in text and "e" in text else text


@cache
def key_text(name: str) -> str:
    """An expert's name as YAML's library writes a key."""
    return str(yaml.safe_dump(name, width=10_000)).removesuffix("\n...\n").removesuffix("\n")


def read_lines(text: str, head_of: Callable[[str], Any]) -> dict[str, Any] | None:
    """A plan's values where all of its rows are as safeswap writes them; None elsewhere.

    Args:
        head_of: reads YAML; given what stands before the rows.
    """
    head, found, rows = text.partition(_UNITS)
    units: dict[str, Any] = {}
    for line in rows.removesuffix("\n").split("\n") if found else ():
        match = _ROW.fullmatch(line)
        if match is None or match[1] in units:
            return None
        row: dict[str, Any] = {"weights": _numbers(match[2])}
        if match[3] is not None:
            row |= {"shares": _numbers(match[3]), "difference": float(match[4])}
        if any(table is None for table in row.values()):
            return None
        units[match[1]] = row
    content = head_of(head) if units else None
    if not isinstance(content, dict) or "units" in content:
        return None
    return {**content, "units": units}


def _numbers(text: str) -> dict[str, float] | None:
    pairs = [pair.split(": ") for pair in text.split(", ")]
    table = {name: float(number) for name, number in pairs}
    whole = len(table) == len(pairs) and not any(name.lower() in _WORDS for name in table)
    return table if whole else None
