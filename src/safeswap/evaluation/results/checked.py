"""Rows and records of a results folder, checked as they are read: others may have edited them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safeswap.errors import EvaluationError
from safeswap.io.regular import shortened

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return type(value) is int


def _count(value: Any) -> bool:
    return value is None or (type(value) is int and value >= 0)


def _flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _number(value: Any) -> bool:
    plain = isinstance(value, int | float)
    return plain and math.isfinite(value) and abs(value) < 1e300


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _table(value: Any) -> bool:
    return isinstance(value, dict)


def _metrics(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_number, value.values()))


def _outcome(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _split(value: Any) -> bool:
    kinds: dict[str, Check] = {"part": _text, "fraction": _outcome, "seed": _whole}
    return isinstance(value, dict) and all(
        key in value and sound(value[key]) for key, sound in kinds.items()
    )


def _cells(value: Any) -> bool:
    kinds = {"title": _text, "measures": _text, "items": _count, "absent": _text, "label": _text}
    return isinstance(value, dict) and all(
        "/" in name
        and isinstance(cell, dict)
        and all(sound(cell[k]) for k, sound in kinds.items() if k in cell)
        for name, cell in value.items()
    )


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        type(count) is int and count >= 0 for count in value.values()
    )


def _voters(value: Any) -> bool:
    return _texts(value) and len(value) == len(set(value)) >= 3 and len(value) % 2 == 1


def _earlier(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and _texts(one.get("judges")) and _counts(one.get("had"))
        for one in value
    )


_WHERE = {"key": _text, "benchmark": _text, "language": _text, "id": _text}
RESPONSE: Mapping[str, Check] = {
    **_WHERE,
    "prompt": _text,
    "response": _text,
    "finish_reason": _text,
    "prompt_tokens?": _count,
    "new_tokens?": _count,
    "reference?": _text,
    "tags?": _texts,
}
VERDICT: Mapping[str, Check] = {
    "key": _text,
    "verdict": _text,
    "categories?": _texts,
    "refusal": _flag,
    "flags": _texts,
    "judge_version": _text,
    "response_digest": _text,
    "raw?": _text,
}
SCORE: Mapping[str, Check] = {
    **_WHERE,
    "right": _outcome,
    "metrics": _metrics,
    "cluster?": _text,
    "question?": _text,
    "prompt_cut?": _flag,
    "response?": _text,
    "cut?": _flag,
    "number?": _text_or_none,
    "expected?": _text,
}
SETTINGS: Mapping[str, Check] = {
    "cells": _cells,
    "arms?": _texts,
    "suites?": _texts,
    "generation?": _table,
    "split?": _split,
}
MODEL: Mapping[str, Check] = {
    "name?": _text,
    "source?": _text,
    "location?": _text,
    "digest?": _text,
    "role?": _text,
    "reference?": _text,
    "language?": _text,
    "made?": _table,
    "candidate?": _table,
    "chosen?": _table,
    "backend?": _text,
    "dtype?": _text,
}
MAJORITY: Mapping[str, Check] = {
    "format": _text,
    "judges": _voters,
    "version": _text,
    "had": _counts,
    "earlier?": _earlier,
}
"""Field → what its value must be; those with a ? may be missing, and unknown ones may be there."""


def checked(content: Mapping[str, Any], kinds: Mapping[str, Check], where: str | Path) -> None:
    """Refuse a row or record with a field missing or of another kind.

    Raises:
        EvaluationError: names the place and the field.
    """
    for name, sound in kinds.items():
        field = name.rstrip("?")
        if field not in content:
            if field == name:
                raise EvaluationError(f"{where}: has no {field}. {_REMEDY}")
        elif not sound(content[field]):
            shown = shortened(ascii(content[field]))
            raise EvaluationError(f"{where}: its {field} cannot be {shown}. {_REMEDY}")


_REMEDY = "The file was edited or damaged: restore it, or evaluate again into another folder."
