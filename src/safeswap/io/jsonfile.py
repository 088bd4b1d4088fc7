"""JSON that somebody else wrote, read so that nothing in it can hurt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safeswap.errors import ConfigError
from safeswap.io.regular import open_regular, read_regular, shortened, unfit_for_names

LIMIT = 64 << 20
"""Bytes of a file, where the caller does not say otherwise."""
LARGE = 1 << 30
"""Bytes of files that grow with a model: profiles, manifests, indexes of shards."""
DEEPEST = 64
"""Lists and tables inside one another."""
MOST = 1 << 25
"""Values in a file: several times those of a manifest of 100,000 tensors. Empty lists take three
bytes of a file each and sixty of memory."""
LINE = 64 << 20
"""Bytes of a line of JSON Lines, where the caller does not say otherwise."""


class LineError(ConfigError):
    """A line that cannot be read.

    Attributes:
        line: its number, from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


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
    return _value(read_regular(path, limit), f"{path}:", constants, names)


def read_json_lines(
    path: Path,
    limit: int = LINE,
    *,
    constants: bool = False,
    names: bool = True,
    whole: bool = False,
) -> Iterator[tuple[int, Any]]:
    """The values of a file with a JSON value a line, each with the number of its line.

    A byte order mark is passed over, and so are blank lines.

    Args:
        limit: bytes that a line may have.
        constants, names: as of `load_json`.
        whole: a blank line is damage, and a last line without its end is passed over: somebody is
            writing it, or was killed.

    Raises:
        OSError: it cannot be read; the caller knows what to do about it.
        ConfigError: no regular file.
        LineError: a line that `load_json` would refuse, or that is too long; names the line.
    """
    with open_regular(path) as stream:
        number = 0
        while line := stream.readline(limit + 1):
            number += 1
            where = f"{path}: line {number}"
            if len(line) > limit:
                raise LineError(
                    f"{where} is longer than {limit} bytes. Is it the right file?", number
                )
            if whole and not line.endswith(b"\n"):
                return
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if whole or line.strip():
                try:
                    value = _value(line, where, constants, names)
                except ConfigError as error:
                    raise LineError(str(error), number) from error
                yield number, value


def _value(data: bytes, where: str, constants: bool, names: bool) -> Any:
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST:
        raise ConfigError(f"{where} holds more than {MOST} values; no file of ours does.")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=None if constants else _refuse_constant)
    except RecursionError as error:
        raise _nested(where) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not JSON (not UTF-8 at byte {error.start}).") from error
    except ValueError as error:  # also: a number of too many digits
        raise ConfigError(f"{where} is not JSON ({shortened(error)}).") from error
    _check(where, value, names)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _nested(where: str) -> ConfigError:
    return ConfigError(f"{where} is nested deeper than {DEEPEST} levels; no file of ours is.")


def _check(where: str, value: Any, names: bool) -> None:
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
                        f"{where} has NUL or half a surrogate pair in {shortened(ascii(text))}."
                    )
        if not below:
            return
        level = below
    raise _nested(where)
