"""JSON that somebody else wrote, read so that nothing in it can hurt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safeswap.errors import ConfigError
from safeswap.io.regular import read_regular, shortened, unfit_for_names

LIMIT = 64 << 20
"""Bytes of a file, where the caller does not say otherwise."""
LARGE = 1 << 30
"""Bytes of files that grow with a model: profiles, manifests, indexes of shards."""
DEEPEST = 64
"""Lists and tables inside one another."""


def load_json(
    path: Path, limit: int = LIMIT, *, constants: bool = False, names: bool = True
) -> Any:
    """A JSON file's value.

    Args:
        limit: bytes that the file may have.
        constants: take ``NaN`` and ``Infinity``, which Python writes although JSON has none.
        names: refuse NUL and half surrogate pairs in its strings: they are names and paths.

    Raises:
        OSError: it cannot be read; the caller knows what to do about it.
        ConfigError: no regular file, too large, not JSON, nested too deep, a number too long.
    """
    data = read_regular(path, limit)
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=None if constants else _refuse_constant)
    except RecursionError as error:
        raise _nested(path) from error
    except ValueError as error:  # also: bytes that are no UTF-8, a number of too many digits
        raise ConfigError(f"{path}: is not JSON ({shortened(error)}).") from error
    _check(path, value, names)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _nested(path: Path) -> ConfigError:
    return ConfigError(f"{path}: is nested deeper than {DEEPEST} levels; no file of ours is.")


def _check(path: Path, value: Any, names: bool) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
                strings = list(item)
            elif isinstance(item, list):
                below.extend(item)
                continue
            else:
                strings = [item] if isinstance(item, str) else []
            for text in strings:
                if names and unfit_for_names(text):
                    raise ConfigError(
                        f"{path}: has NUL or half a surrogate pair in {shortened(ascii(text))}."
                    )
        if not below:
            return
        level = below
    raise _nested(path)
